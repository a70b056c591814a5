/* plot.c: the comparison as an SVG: a row of panels for each size, a panel for each kind of call, a
 * bar for each peer on a logarithmic axis of nanoseconds: the bar is the mean, the mark the 99th
 * percentile. Plain shapes and text, no script, readable on white and when printed. See result.h.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "result.h"

enum {
    PANEL_WIDTH = 330,
    NAMES_WIDTH = 84,
    BAR_HEIGHT = 12,
    BAR_STEP = 18,
    PANEL_HEAD = 30,
    PANEL_FOOT = 30,
    MARGIN = 16,
    HEAD = 78,
    PLOT_WIDTH = PANEL_WIDTH - NAMES_WIDTH - 52, /* room for the figure behind the longest bar */
    DECADE_FIRST = 1,                            /* 10 ns */
    DECADE_LAST = 6                              /* 1 ms */
};

static const struct panel {
    struct drive_cell cell;
    const char *title;
} panels[] = {
    {{DRIVE_GET, WORKLOAD_ZIPF, 1}, "get, one process"},
    {{DRIVE_GET, WORKLOAD_UNIFORM, 1}, "get, uniform keys, one process"},
    {{DRIVE_MIX, WORKLOAD_ZIPF, 2}, "nine gets to a set, two processes"},
    {{DRIVE_SET, WORKLOAD_ZIPF, 1}, "set, one process"},
    {{DRIVE_SET, WORKLOAD_ZIPF, 2}, "set, two processes"},
};
enum { PANELS = sizeof panels / sizeof *panels };

static double place(double ns)
{
    double decades = log10(ns < 10 ? 10 : ns) - DECADE_FIRST;
    if (decades > DECADE_LAST - DECADE_FIRST)
        decades = DECADE_LAST - DECADE_FIRST;
    return decades / (DECADE_LAST - DECADE_FIRST) * PLOT_WIDTH;
}

static const char *colour_of(const char *peer)
{
    if (strncmp(peer, "larder", 6) == 0)
        return strcmp(peer, "larder") == 0 ? "#c2410c" : "#f0a678";
    if (strncmp(peer, "lmdb", 4) == 0)
        return "#334155";
    return strcmp(peer, "table") == 0 ? "#c9ced6" : "#7c93ad";
}

static void text(FILE *file, double x, double y, const char *anchor, const char *style,
                 const char *words)
{
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" %s>%s</text>\n", x, y, anchor,
            style, words);
}

static void axis(FILE *file, double x, double top, double bottom)
{
    static const char *const labels[] = {"10 ns", "100 ns", "1 µs", "10 µs", "100 µs", "1 ms"};
    for (int decade = DECADE_FIRST; decade <= DECADE_LAST; decade++) {
        double at = x + place(pow(10, decade));
        fprintf(file,
                "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#dde2e8\"/>\n", at,
                top, at, bottom);
        text(file, at, bottom + 13, "middle", "font-size=\"9\" fill=\"#64748b\"",
             labels[decade - DECADE_FIRST]);
    }
}

static void figure_text(char out[32], double ns)
{
    if (ns < 1000)
        snprintf(out, 32, "%.0f ns", ns);
    else
        snprintf(out, 32, ns < 10000 ? "%.1f µs" : "%.0f µs", ns / 1000);
}

static void draw_bar(FILE *file, double x, double y, const char *peer, double mean, double p99)
{
    char figure[32];
    double end = place(mean), mark = place(p99);
    text(file, x - 6, y + BAR_HEIGHT - 2, "end",
         strcmp(peer, "larder") == 0 ? "font-size=\"11\" font-weight=\"bold\"" : "font-size=\"11\"",
         peer);
    fprintf(file, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", x, y,
            end < 1 ? 1 : end, BAR_HEIGHT, colour_of(peer));
    fprintf(file,
            "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#111827\" "
            "stroke-width=\"2\"/>\n",
            x + mark, y - 2, x + mark, y + BAR_HEIGHT + 2);
    figure_text(figure, mean);
    text(file, x + (mark > end ? mark : end) + 5, y + BAR_HEIGHT - 2, "start",
         "font-size=\"10\" fill=\"#334155\"", figure);
}

static double panel_height(const struct result *result)
{
    return PANEL_HEAD + PANEL_FOOT + (double)result->peer_count * BAR_STEP;
}

static void draw_panel(FILE *file, const struct result *result, const struct result_size *size,
                       const struct panel *panel, double left, double top)
{
    const struct result_line *lines =
        result_cell(size, panel->cell.operation, panel->cell.workload, panel->cell.processes);
    double x = left + NAMES_WIDTH, y = top + PANEL_HEAD;
    bool sets = panel->cell.operation == DRIVE_SET;
    text(file, x, top + 18, "start", "font-size=\"12\" font-weight=\"bold\" fill=\"#1f2937\"",
         panel->title);
    axis(file, x, y - 4, y + (double)result->peer_count * BAR_STEP);
    for (unsigned peer = 0; lines != NULL && peer < result->peer_count; peer++) {
        if (lines[peer].rounds == 0) {
            text(file, x - 6, y + BAR_HEIGHT - 2, "end", "font-size=\"11\" fill=\"#94a3b8\"",
                 result->peers[peer]);
            text(file, x + 4, y + BAR_HEIGHT - 2, "start", "font-size=\"10\" fill=\"#94a3b8\"",
                 "not measured");
        } else {
            draw_bar(
                file, x, y, result->peers[peer], result_median(&lines[peer], RESULT_FIELD(mean_ns)),
                result_median(&lines[peer], sets ? RESULT_FIELD(set_p99) : RESULT_FIELD(get_p99)));
        }
        y += BAR_STEP;
    }
}

static unsigned panels_of(const struct result_size *size)
{
    unsigned count = 0;
    for (unsigned at = 0; at < PANELS; at++) {
        const struct drive_cell *cell = &panels[at].cell;
        count += result_cell(size, cell->operation, cell->workload, cell->processes) != NULL;
    }
    return count;
}

static void legend(FILE *file, double y)
{
    static const char *const entries[][2] = {{"#c2410c", "larder"},
                                             {"#334155", "plain LMDB"},
                                             {"#7c93ad", "other caches"},
                                             {"#c9ced6", "table: a bare hash table, the floor"}};
    double x = MARGIN;
    for (size_t at = 0; at < sizeof entries / sizeof *entries; at++) {
        fprintf(file, "<rect x=\"%.1f\" y=\"%.1f\" width=\"12\" height=\"12\" fill=\"%s\"/>\n", x,
                y - 10, entries[at][0]);
        text(file, x + 17, y, "start", "font-size=\"11\" fill=\"#1f2937\"", entries[at][1]);
        x += 40 + 6.4 * (double)strlen(entries[at][1]);
    }
    fprintf(file,
            "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#111827\" "
            "stroke-width=\"2\"/>\n",
            x + 4, y - 12, x + 4, y + 4);
    text(file, x + 12, y, "start", "font-size=\"11\" fill=\"#1f2937\"",
         "99th percentile (in the mix: of the gets)");
}

static void row_title(char out[160], const struct result_size *size)
{
    char value[32];
    if (size->value_size % 1024 == 0)
        snprintf(value, sizeof value, "%" PRIu64 " KiB", size->value_size / 1024);
    else
        snprintf(value, sizeof value, "%" PRIu64 " bytes", size->value_size);
    if (size->entries % 1000000 == 0)
        snprintf(out, 160, "%" PRIu64 " million entries of %s", size->entries / 1000000, value);
    else
        snprintf(out, 160, "%" PRIu64 ",%03" PRIu64 " entries of %s", size->entries / 1000,
                 size->entries % 1000, value);
}

void result_plot(const struct result *result, FILE *file)
{
    double row = panel_height(result) + 30, y = HEAD;
    unsigned most = 1;
    char title[160];
    for (unsigned at = 0; at < result->size_count; at++) {
        unsigned count = panels_of(&result->sizes[at]);
        most = count > most ? count : most;
    }
    double width = MARGIN * 2 + (double)most * PANEL_WIDTH;
    double height = HEAD + (double)result->size_count * row + MARGIN;
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
            "viewBox=\"0 0 %.0f %.0f\" font-family=\"DejaVu Sans, Helvetica, sans-serif\">\n"
            "<title>larder and its peers</title>\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
            width, height, width, height);
    text(file, MARGIN, 28, "start", "font-size=\"18\" font-weight=\"bold\" fill=\"#111827\"",
         "Nanoseconds a call takes: larder and its peers");
    text(
        file, MARGIN, 46, "start", "font-size=\"11\" fill=\"#475569\"",
        "Bar: mean. Logarithmic axis, shorter is better. Zipf 0.99 where not said otherwise. One run, "
        "interleaved rounds, medians.");
    legend(file, 66);
    for (unsigned at = 0; at < result->size_count; at++) {
        const struct result_size *size = &result->sizes[at];
        double x = MARGIN;
        row_title(title, size);
        text(file, MARGIN, y + 22, "start",
             "font-size=\"14\" font-weight=\"bold\" fill=\"#c2410c\"", title);
        for (unsigned panel = 0; panel < PANELS; panel++) {
            const struct drive_cell *cell = &panels[panel].cell;
            if (result_cell(size, cell->operation, cell->workload, cell->processes) == NULL)
                continue;
            draw_panel(file, result, size, &panels[panel], x, y + 26);
            x += PANEL_WIDTH;
        }
        y += row;
    }
    fprintf(file, "</svg>\n");
}
