// The scale is linear in log2 of the share of the KV cache: halving the cache is the same step
// everywhere. Two sets of anchors, since a colour that reads well on white paper disappears on a
// dark screen; between two anchors each channel is interpolated linearly.
#include "train/report/report_color.h"

#include <math.h>
#include <stdio.h>

typedef struct Anchor {
    double place;
    int paper[3];  // red, green, blue from 0 to 255 on white paper
    int screen[3]; // on a dark screen
} Anchor;

// Lightness changes steadily along the scale and the hue with it, so that neighbours stay apart.
static const Anchor anchors[] = {
    {0.00, {0x1b, 0x10, 0x44}, {0xf4, 0xf1, 0xff}}, {0.35, {0x2d, 0x3f, 0x93}, {0xbc, 0xc6, 0xf8}},
    {0.56, {0x2b, 0x6a, 0xb0}, {0x8a, 0xb8, 0xf0}}, {0.80, {0x22, 0x9a, 0xa5}, {0x45, 0xac, 0xbd}},
    {1.00, {0x5f, 0xbf, 0x8a}, {0x3c, 0x93, 0x78}},
};

// Hues far apart, of about one lightness, so that no group stands out.
enum { N_GROUPS = 8 };
static const char *const group_colors[2][N_GROUPS] = {
    // blue, orange, green, purple, red, olive, teal, brown
    {"#2b6ab0", "#c4561f", "#1f8a5b", "#8b4bb0", "#b3304f", "#6f6f12", "#0d8791", "#86592f"},
    {"#8ab8f0", "#f2a36f", "#6fcf9f", "#cf9be8", "#f28aa0", "#cccc66", "#5fd0de", "#d6ab80"},
};

void report_color_at(char out[COLOR_BYTES], double place, bool is_dark_screen)
{
    int i = 1;
    while (anchors[i].place < place)
        i++;
    const Anchor *a = &anchors[i - 1], *b = &anchors[i];
    double part = (place - a->place) / (b->place - a->place);
    unsigned rgb[3];
    for (int c = 0; c < 3; c++) {
        int from = is_dark_screen ? a->screen[c] : a->paper[c];
        int to = is_dark_screen ? b->screen[c] : b->paper[c];
        rgb[c] = (unsigned)lround(from + part * (to - from)) & 0xff;
    }
    snprintf(out, COLOR_BYTES, "#%02x%02x%02x", rgb[0], rgb[1], rgb[2]);
}

void report_color(char out[COLOR_BYTES], double share, bool is_dark_screen)
{
    report_color_at(out, fmin(fmax(-log2(share) / 3, 0), 1), is_dark_screen); // 1/8 is 2^-3
}

void report_color_of_group(char out[COLOR_BYTES], int n, bool is_dark_screen)
{
    snprintf(out, COLOR_BYTES, "%s", group_colors[is_dark_screen][n % N_GROUPS]);
}
