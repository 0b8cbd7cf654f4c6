// Models in the layouts of the paper's own code, which mha2mla import reads: what their config.json
// says. The weights are not opened.
#include "model/paper/paper_config.h"
#include "train/inspect/inspect.h"

#include <stdio.h>

bool inspect_is_paper(const char *dir)
{
    char path[PATH_BYTES];
    json_t *config;
    if (file_join(path, dir, "config.json") != OK || !file_exists(path) ||
        json_read(&config, path) != OK)
        return false;
    const bool is_paper = hf_config_layout(config) != PAPER_NONE;
    json_decref(config);
    return is_paper;
}

Status inspect_paper(const char *dir)
{
    PaperConfig paper;
    TRY(paper_config_read(&paper, dir));
    printf("%s: model of the paper's code, MHA2MLA %s; make one of this program of it by mha2mla "
           "import\n",
           dir, paper_version(paper.layout));
    inspect_shape(&paper.shape);
    inspect_label("pairs");
    printf("by %s", paper.strategy);
    if (paper.is_by_ranks)
        printf(", in a file of ranks%s%s", paper.ranks_path[0] != '\0' ? ", " : "",
               paper.ranks_path);
    for (int p = 0; !paper.is_by_ranks && p < paper.shape.rope_pairs; p++)
        printf("%s %d", p > 0 ? "," : ":", (int)paper.pairs[p]);
    putchar('\n');
    paper_config_release(&paper);
    return OK;
}
