// Recursive descent over libyaml's events. libyaml's own document API is not used: it resolves
// anchors, knows no duplicate keys, and keeps no place for the lines of overrides. Depth, width and
// size are bounded, so that no file can exhaust the stack or make the search for duplicate keys
// slow: that search compares each key with all keys of its block.
#include "train/config/config_yaml.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_DEPTH = 16, MAX_KEYS = 256, MAX_FILE_BYTES = 1 << 20 };

typedef struct Builder {
    yaml_parser_t parser;
    const char *where; // what errors name: the file's path, or the override
    bool is_override;
    Tree *tree;
    ConfigErrors *errors;
} Builder;

// A node that the tree owns. The text is stored behind it: a copy, since events do not outlive the
// parser.
static Node *make_node(Tree *tree, NodeKind kind, const char *text, size_t length)
{
    Node *node = calloc(1, sizeof *node + length + 1);
    if (node == NULL)
        return NULL;
    node->kind = kind;
    if (length > 0)
        memcpy(node->storage, text, length);
    node->text = node->storage;
    node->made_before = tree->newest;
    tree->newest = node;
    return node;
}

static Status no_memory(const char *where)
{
    return fail(FAILED, "%s: no memory to read it", where);
}

// At the end, in constant time: the order of the file is kept for messages.
static void append(Node *parent, Node *child)
{
    if (parent->end != NULL)
        parent->end->next = child;
    else
        parent->first = child;
    parent->end = child;
    parent->n_children++;
}

// By length, as a part of a dotted path has no zero at its end.
Node *node_find(const Node *map, const char *key, size_t length)
{
    Node *child = map != NULL && map->kind == NODE_MAP ? map->first : NULL;
    for (; child != NULL; child = child->next) {
        if (strlen(child->key) == length && memcmp(child->key, key, length) == 0)
            return child;
    }
    return NULL;
}

// libyaml reports byte offsets for invalid UTF-8 and lines for everything else. The line of an
// override means nothing to the user, so its text is shown instead.
static Status next_event(Builder *b, yaml_event_t *event)
{
    if (yaml_parser_parse(&b->parser, event))
        return OK;
    const yaml_parser_t *p = &b->parser;
    if (p->error == YAML_MEMORY_ERROR)
        return no_memory(b->where);
    const char *problem = p->problem != NULL ? p->problem : "unknown problem";
    if (p->error == YAML_READER_ERROR)
        return fail(BAD_INPUT, "%s: not valid YAML: %s at byte %zu", b->where, problem,
                    p->problem_offset);
    if (b->is_override)
        return fail(BAD_INPUT, "'%.200s' is not valid YAML: %s", b->where, problem);
    return fail(BAD_INPUT, "%s:%zu:%zu: not valid YAML: %s", b->where, p->problem_mark.line + 1,
                p->problem_mark.column + 1, problem);
}

// Characters that would break a line of output, or that YAML cannot write back as they are:
// controls, Unicode's line separators, byte order marks. libyaml has checked the UTF-8.
static bool is_plain_line(const unsigned char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        const unsigned char *c = text + i;
        if (c[0] < 0x20 || c[0] == 0x7f)
            return false;
        bool is_c1 = c[0] == 0xc2 && c[1] < 0xa0;
        bool is_separator = c[0] == 0xe2 && c[1] == 0x80 && (c[2] == 0xa8 || c[2] == 0xa9);
        bool is_mark = c[0] == 0xef && ((c[1] == 0xbb && c[2] == 0xbf) ||
                                        (c[1] == 0xbf && (c[2] == 0xbe || c[2] == 0xbf)));
        if (is_c1 || is_separator || is_mark)
            return false;
    }
    return true;
}

// Anchors, aliases and tags are refused for all kinds of nodes: an alias would make the tree a
// graph, and a chain of them could expand to any size.
static Status node_from_event(Builder *b, const yaml_event_t *event, Node **out)
{
    size_t line = event->start_mark.line + 1;
    const unsigned char *anchor = NULL, *tag = NULL, *text = NULL;
    size_t length = 0;
    NodeKind kind = NODE_SCALAR;
    bool is_quoted = false;
    *out = NULL;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
        text = event->data.scalar.value;
        length = event->data.scalar.length;
        is_quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        break;
    case YAML_SEQUENCE_START_EVENT:
        kind = NODE_LIST;
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        kind = NODE_MAP;
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
        break;
    case YAML_ALIAS_EVENT:
        anchor = event->data.alias.anchor;
        break;
    default:
        return OK; // the end of a list or a map
    }
    if (anchor != NULL || tag != NULL)
        return fail(BAD_INPUT,
                    "%s:%zu: anchors, aliases and tags are not supported; write the "
                    "value out, in quotes if it starts with & * or !",
                    b->where, line);
    if (text != NULL && !is_plain_line(text, length))
        return fail(BAD_INPUT, "%s:%zu: text with control characters or line breaks", b->where,
                    line);
    Node *node = make_node(b->tree, kind, (const char *)text, length);
    if (node == NULL)
        return no_memory(b->where);
    node->is_quoted = is_quoted;
    node->line = b->is_override ? LINE_OVERRIDE : (int)line;
    *out = node;
    return OK;
}

static Status read_children(Builder *b, int depth, Node *parent);

// *out is NULL where a list or map ends. Scalars are complete; lists and maps are read with their
// children, one level deeper.
static Status read_node(Builder *b, int depth, Node **out)
{
    yaml_event_t event;
    TRY(next_event(b, &event));
    size_t line = event.start_mark.line + 1;
    Status status = node_from_event(b, &event, out);
    yaml_event_delete(&event);
    if (status != OK || *out == NULL || (*out)->kind == NODE_SCALAR)
        return status;
    if (depth >= MAX_DEPTH)
        return fail(BAD_INPUT, "%s:%zu: nested deeper than %d levels", b->where, line, MAX_DEPTH);
    return read_children(b, depth + 1, *out);
}

// YAML parsers keep the first or the last of duplicate keys without a word; here they are errors.
static Status add_entry(Builder *b, Node *map, const Node *key, Node *value)
{
    if (map->n_children >= MAX_KEYS)
        return fail(BAD_INPUT, "%s:%d: more than %d keys in one block", b->where, key->line,
                    MAX_KEYS);
    const Node *first = node_find(map, key->text, strlen(key->text));
    if (first != NULL) {
        char place[32] = "";
        if (!b->is_override)
            snprintf(place, sizeof place, ", first on line %d", first->line);
        errors_add(b->errors, key->line, key->text, "duplicate key '%.100s'%s; keep one", key->text,
                   place);
        return OK;
    }
    value->key = key->text;
    value->line = key->line;
    append(map, value);
    return OK;
}

// Until the end of the list or map. In a map, nodes alternate between keys and values, which
// libyaml guarantees.
static Status read_children(Builder *b, int depth, Node *parent)
{
    for (;;) {
        Node *item, *value;
        TRY(read_node(b, depth, &item));
        if (item == NULL)
            return OK;
        if (parent->kind == NODE_LIST) {
            append(parent, item);
            continue;
        }
        if (item->kind != NODE_SCALAR)
            return fail(BAD_INPUT, "%s:%d: a key is a list or mapping; keys are words", b->where,
                        item->line);
        TRY(read_node(b, depth, &value));
        CHECK(value != NULL, "key %s without a value event", item->text);
        TRY(add_entry(b, parent, item, value));
    }
}

static Status expect_event(Builder *b, yaml_event_type_t *type)
{
    yaml_event_t event;
    TRY(next_event(b, &event));
    *type = event.type;
    yaml_event_delete(&event);
    return OK;
}

// Stream start, document start, one node, document end, stream end: what libyaml sends for one
// document.
static Status read_stream(Builder *b, Node **root)
{
    yaml_event_type_t type;
    TRY(expect_event(b, &type)); // start of the stream
    TRY(expect_event(b, &type));
    if (type == YAML_STREAM_END_EVENT)
        return OK;
    TRY(read_node(b, 0, root));
    TRY(expect_event(b, &type)); // end of the document
    TRY(expect_event(b, &type));
    if (type != YAML_STREAM_END_EVENT)
        return fail(BAD_INPUT, "%s: more than one YAML document; keep one", b->where);
    return OK;
}

// *root stays NULL if there is nothing but comments. The parser is used for files and for the
// values of overrides, so that both have the same syntax: --a.b=[1, 2] is a list.
static Status parse(Tree *tree, Node **root, const unsigned char *bytes, size_t size_bytes,
                    const char *where, bool is_override, ConfigErrors *errors)
{
    Builder b = {.where = where, .is_override = is_override, .tree = tree, .errors = errors};
    *root = NULL;
    if (!yaml_parser_initialize(&b.parser))
        return no_memory(where);
    yaml_parser_set_input_string(&b.parser, bytes, size_bytes);
    Status status = read_stream(&b, root);
    yaml_parser_delete(&b.parser);
    return status;
}

// The file is mapped and parsed from memory; texts are copied into the tree, so the map can go at
// once.
Status tree_read(Tree *tree, const char *path, ConfigErrors *errors)
{
    FileMap map;
    TRY(file_map(&map, path));
    Status status = OK;
    Node *root = NULL;
    if (map.size_bytes > MAX_FILE_BYTES)
        status = fail(BAD_INPUT, "%s: %lld bytes, a config has at most %d", path,
                      (long long)map.size_bytes, MAX_FILE_BYTES);
    else if (map.size_bytes > 0)
        status = parse(tree, &root, map.bytes, (size_t)map.size_bytes, path, false, errors);
    file_unmap(&map);
    TRY(status);
    if (root == NULL || (root->kind == NODE_SCALAR && root->text[0] == '\0'))
        return fail(BAD_INPUT, "%s: empty; see mha2mla train --help-config for the keys", path);
    if (root->kind != NODE_MAP)
        return fail(BAD_INPUT, "%s:%d: not a mapping; a config has sections such as 'model:'", path,
                    root->line);
    tree->root = root;
    return OK;
}

// The map `key` of `map`. It is created if it is missing, and replaces a value that is not a map,
// so that --model.convert.d_kv=8 works where the file says "convert: none".
static Node *enter_map(Tree *tree, Node *map, const char *key, size_t length)
{
    Node *child = node_find(map, key, length);
    if (child != NULL && child->kind == NODE_MAP)
        return child;
    Node *name = make_node(tree, NODE_SCALAR, key, length);
    if (name == NULL)
        return NULL;
    if (child == NULL) {
        child = make_node(tree, NODE_MAP, NULL, 0);
        if (child == NULL)
            return NULL;
        append(map, child);
    }
    child->kind = NODE_MAP;
    child->key = name->text;
    child->line = LINE_OVERRIDE;
    child->first = child->end = NULL;
    child->n_children = 0;
    return child;
}

// Sets the value at a path of keys joined by dots, and creates the maps on the way.
static Status put_value(Tree *tree, const char *path, size_t length, Node *value)
{
    Node *map = tree->root;
    const char *key = path, *end = path + length, *dot;
    while ((dot = memchr(key, '.', (size_t)(end - key))) != NULL) {
        map = enter_map(tree, map, key, (size_t)(dot - key));
        if (map == NULL)
            return no_memory("command line");
        key = dot + 1;
    }
    // The old node takes over the new one's content, so that its place in the list stays.
    Node *slot = enter_map(tree, map, key, (size_t)(end - key));
    if (slot == NULL)
        return no_memory("command line");
    slot->kind = value->kind;
    slot->is_quoted = value->is_quoted;
    slot->line = LINE_OVERRIDE;
    slot->text = value->text;
    slot->first = value->first;
    slot->end = value->end;
    slot->n_children = value->n_children;
    return OK;
}

// Words joined by single dots, at most as deep as a file may be nested.
static bool is_path(const char *text, size_t length)
{
    int depth = 1;
    for (size_t i = 0; i < length; i++) {
        bool is_dot = text[i] == '.';
        if (is_dot && (i == 0 || text[i - 1] == '.'))
            return false;
        depth += is_dot;
    }
    return length > 0 && text[length - 1] != '.' && depth < MAX_DEPTH &&
           is_plain_line((const unsigned char *)text, length);
}

// A mistake in an override is collected like one in the file, with the command line as its place.
Status tree_override(Tree *tree, const char *override, ConfigErrors *errors)
{
    const char *path = strncmp(override, "--", 2) == 0 ? override + 2 : override;
    size_t length = strcspn(path, "=");
    if (path[length] != '=' || !is_path(path, length)) {
        errors_add(errors, LINE_OVERRIDE, "", "'%.200s' sets no key; write --section.key=value",
                   override);
        return OK;
    }
    const char *text = path + length + 1;
    Node *value;
    Status status =
        parse(tree, &value, (const unsigned char *)text, strlen(text), override, true, errors);
    if (status == BAD_INPUT) {
        errors_add(errors, LINE_OVERRIDE, "", "%s", fail_text());
        return OK;
    }
    TRY(status);
    if (value == NULL)
        value = make_node(tree, NODE_SCALAR, NULL, 0);
    if (value == NULL)
        return no_memory("command line");
    return put_value(tree, path, length, value);
}

int tree_line(const Tree *tree, const char *path)
{
    const Node *node = tree->root;
    for (const char *key = path; *key != '\0';) {
        const size_t length = strcspn(key, ".");
        const Node *child = node_find(node, key, length);
        if (child == NULL)
            break; // a missing key is reported at the block that it is missing from
        node = child;
        key += length + (key[length] == '.');
    }
    return node == tree->root ? LINE_NONE : node->line;
}

void tree_release(Tree *tree)
{
    for (Node *node = tree->newest; node != NULL;) {
        Node *before = node->made_before;
        free(node);
        node = before;
    }
    *tree = (Tree){0};
}
