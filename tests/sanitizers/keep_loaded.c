// Linked into every program of the sanitizer builds. Open MPI closes its components before the
// program ends; the leak sanitizer then prints their frames as <unknown module>, which no line of
// lsan.supp can name. So nothing is ever unloaded.
int dlclose(void *handle);

int dlclose(void *handle)
{
    (void)handle;
    return 0;
}
