// A YAML file as a tree of nodes that know their line, and overrides put into that tree.
//
//     Tree tree = {0};
//     status = tree_read(&tree, "configs/demo.yaml", errors);
//     ...  tree_override(&tree, "--optim.lr=1e-3", errors);
//     const Node *optim = node_find(tree.root, "optim", strlen("optim"));
//     tree_release(&tree);       // also after an error
//
// Anchors, tags and several documents are refused: a config needs none of them, and without anchors
// a small file cannot expand into a huge tree. Duplicate keys are added to `errors`; a file that is
// not YAML is BAD_INPUT at once, with line and column.
#ifndef MHA2MLA_TRAIN_CONFIG_CONFIG_YAML_H
#define MHA2MLA_TRAIN_CONFIG_CONFIG_YAML_H

#include "train/config/config_errors.h"

#include <stddef.h>

typedef enum NodeKind { NODE_SCALAR, NODE_LIST, NODE_MAP } NodeKind;

typedef struct Node Node;
struct Node {
    NodeKind kind;
    bool is_quoted;    // a scalar in quotes is text, never a number or none
    int line;          // of its key if it has one; LINE_OVERRIDE on the command line
    const char *text;  // scalar
    const char *key;   // in a map, or NULL
    Node *first, *end; // children: first and last
    Node *next;        // sibling
    int n_children;
    Node *made_before; // the tree's list of what it owns
    char storage[];    // of `text`
};

typedef struct Tree {
    Node *root;   // a map
    Node *newest; // owns all nodes
} Tree;

Status tree_read(Tree *tree, const char *path, ConfigErrors *errors);

// Puts "--section.key=YAML" into the tree; a malformed one is added to `errors`. FAILED: memory.
Status tree_override(Tree *tree, const char *override, ConfigErrors *errors);

// Child of a map (which may be NULL); `length` bytes of `key`.
Node *node_find(const Node *map, const char *key, size_t length);

// Line to name in an error about a key: its own, or that of the nearest node around it.
int tree_line(const Tree *tree, const char *path);

void tree_release(Tree *tree);

#endif
