#include "model/hf/custom_code.h"

#include "base/file.h"

#include <string.h>

// Made from the files by model/hf/python/embed.cmake.
extern const char custom_code_configuration[], custom_code_modeling[];

const char custom_code_architecture[] = "Mha2mlaForCausalLM";

static const struct {
    const char *name, *text;
} files[] = {
    {"configuration_mha2mla.py", custom_code_configuration},
    {"modeling_mha2mla.py", custom_code_modeling},
};

json_t *custom_code_auto_map(void)
{
    return json_pack("{s:s, s:s}", "AutoConfig", "configuration_mha2mla.Mha2mlaConfig",
                     "AutoModelForCausalLM", "modeling_mha2mla.Mha2mlaForCausalLM");
}

Status custom_code_write(const char *dir)
{
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[PATH_BYTES];
        TRY(file_join(path, dir, files[i].name));
        TRY(file_write(path, files[i].text, (int64_t)strlen(files[i].text)));
    }
    return OK;
}

Status custom_code_remove(const char *dir)
{
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        TRY(file_remove(dir, files[i].name));
    return OK;
}
