// Members of the page's data: each function sets one and returns whether there was the memory.
// jansson's setters refuse NULL, so one check of what they return covers a lack of memory.
#ifndef MHA2MLA_TRAIN_REPORT_REPORT_JSON_H
#define MHA2MLA_TRAIN_REPORT_REPORT_JSON_H

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

// A number that was not measured is null.
static inline json_t *real_or_null(double value)
{
    return isnan(value) ? json_null() : json_real(value);
}

static inline bool set_real(json_t *object, const char *key, double value)
{
    return json_object_set_new(object, key, real_or_null(value)) == 0;
}

static inline bool set_int(json_t *object, const char *key, int64_t value)
{
    return json_object_set_new(object, key, json_integer(value)) == 0;
}

// Below 0: not known, null.
static inline bool set_count(json_t *object, const char *key, int64_t value)
{
    return json_object_set_new(object, key, value < 0 ? json_null() : json_integer(value)) == 0;
}

static inline bool set_bool(json_t *object, const char *key, bool value)
{
    return json_object_set_new(object, key, json_boolean(value)) == 0;
}

// `text` is UTF-8.
static inline bool set_text(json_t *object, const char *key, const char *text)
{
    return json_object_set_new(object, key, json_string(text)) == 0;
}

#endif
