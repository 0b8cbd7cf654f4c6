// A run that resumes after its data changed would skip samples or train on some twice, and nothing
// in its losses would show it. So a difference is an error with the field's name, not a warning.
#include "data/fingerprint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIELD_BYTES = 256, VALUE_BYTES = 200 };

// A JSON value as a few words of an error message.
static void value_text(char out[VALUE_BYTES], const json_t *value)
{
    char *text = NULL;
    if (json_is_array(value))
        snprintf(out, VALUE_BYTES, "%zu entries", json_array_size(value));
    else if (value == NULL || json_is_object(value))
        snprintf(out, VALUE_BYTES, value == NULL ? "nothing" : "an object");
    else if ((text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(10))) != NULL)
        snprintf(out, VALUE_BYTES, "%s", text);
    else
        snprintf(out, VALUE_BYTES, "something unreadable");
    free(text);
}

// Whole numbers and texts must be equal; reals may have been rounded when they were written.
static bool same_value(const json_t *current, const json_t *saved)
{
    if (!json_is_real(current) || !json_is_number(saved))
        return json_equal(current, saved) != 0;
    const double a = json_number_value(current), b = json_number_value(saved);
    return fabs(a - b) <= 1e-9 * fabs(a);
}

// `field` is the path to both values, such as "data.sources[0].weight". Fields that only `saved`
// has are not looked at: an older version may have written more.
static Status compare(json_t *current, const json_t *saved, const char *where, const char *field)
{
    char inner[FIELD_BYTES];
    if (json_is_object(current) && json_is_object(saved)) {
        const char *key;
        json_t *value;
        json_object_foreach(current, key, value)
        {
            snprintf(inner, sizeof inner, "%s.%s", field, key);
            // Older versions did not write it: then `content` is all there is to compare.
            if (strcmp(key, "tokens_crc32") == 0 && json_object_get(saved, key) == NULL)
                continue;
            TRY(compare(value, json_object_get(saved, key), where, inner));
        }
        return OK;
    }
    if (json_is_array(current) && json_array_size(current) == json_array_size(saved) &&
        json_is_array(saved)) {
        for (size_t i = 0; i < json_array_size(current); i++) {
            snprintf(inner, sizeof inner, "%s[%zu]", field, i);
            TRY(compare(json_array_get(current, i), json_array_get(saved, i), where, inner));
        }
        return OK;
    }
    if (!json_is_object(current) && !json_is_array(current) && same_value(current, saved))
        return OK;
    // Different kinds, lengths or values: one message for all, with the path of the field.
    char before[VALUE_BYTES], after[VALUE_BYTES];
    value_text(before, saved);
    value_text(after, current);
    return fail(BAD_INPUT,
                "%s: made with %s %s, now %s; samples would be skipped or seen twice: resume "
                "with the same data, or start a new run",
                where, strcmp(field, "data.seed") == 0 ? "run.seed" : field, before, after);
}

Status fingerprint_check(json_t *current, const json_t *saved, const char *where)
{
    return compare(current, saved, where, "data");
}
