// The choices depend on what is given alone, never on the model, so that a command says the same
// for every model and `plan` knows it before anything is read.
#include "model/convert/recipe.h"

const char *const convert_method_names[] = {[METHOD_PAPER] = "paper",
                                            [METHOD_WHITENED] = "whitened",
                                            [METHOD_CLOSED] = "closed",
                                            [METHOD_AUTO] = "auto",
                                            NULL};

const char *const refit_parts_names[] = {[REFIT_ALL] = "all", [REFIT_OUTPUTS] = "outputs", NULL};

// Pairs that MHA2MLA chooses.
static bool is_papers(RopeStrategy rope)
{
    return rope == ROPE_HIGH || rope == ROPE_LOW || rope == ROPE_UNIFORM || rope == ROPE_2NORM;
}

static ConvertForm choose_form(const ConvertTarget *target, ConvertMethod method, RopeStrategy rope)
{
    if (target->slots > 0 || target->latent > 0 || target->latent_norm)
        return FORM_SHARED;
    const bool has_widths = target->rope_pairs > 0 || target->d_kv > 0;
    return has_widths || target->svd == SVD_SPLIT || is_papers(rope) || method == METHOD_PAPER ||
                   method == METHOD_WHITENED
               ? FORM_PER_HEAD
               : FORM_SHARED;
}

void recipe_complete(ConvertRecipe *recipe, ConvertTarget *target, RopeStrategy *rope)
{
    if (target->form == FORM_AUTO)
        target->form = choose_form(target, recipe->method, *rope);
    if (recipe->method == METHOD_AUTO)
        recipe->method = target->form == FORM_SHARED ? METHOD_CLOSED : METHOD_PAPER;
    if (*rope == ROPE_AUTO)
        *rope = recipe->method == METHOD_CLOSED ? ROPE_KL : ROPE_2NORM;
    recipe->mixes = *rope == ROPE_SHARED_UNIFORM;
}

Status recipe_check(const ConvertRecipe *recipe, const ModelShape *original, const char *setting)
{
    if (original->qk_norm && recipe->method == METHOD_CLOSED)
        return fail(BAD_INPUT,
                    "%s is closed, whose error of a score knows no norm of heads (qk_norm); "
                    "choose paper or whitened",
                    setting);
    return OK;
}
