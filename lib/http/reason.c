/* reason.c: why it was decided so, in words, for logs and tests.
 */
#include "larder_http.h"

const char *larder_http_reason(uint32_t reason)
{
    static const char *const texts[] = {
        [LARDER_HTTP_WHY_NONE] = "none",
        [LARDER_HTTP_WHY_ABSENT] = "absent",
        [LARDER_HTTP_WHY_FRESH] = "fresh",
        [LARDER_HTTP_WHY_STALE] = "stale",
        [LARDER_HTTP_WHY_MAX_STALE] = "max-stale",
        [LARDER_HTTP_WHY_NO_CACHE] = "no-cache",
        [LARDER_HTTP_WHY_MIN_FRESH] = "min-fresh",
        [LARDER_HTTP_WHY_REVALIDATE] = "revalidate",
        [LARDER_HTTP_WHY_CREDENTIALS] = "credentials",
        [LARDER_HTTP_WHY_METHOD] = "method",
        [LARDER_HTTP_WHY_STATUS] = "status",
        [LARDER_HTTP_WHY_NO_STORE] = "no-store",
        [LARDER_HTTP_WHY_PRIVATE] = "private",
        [LARDER_HTTP_WHY_SET_COOKIE] = "set-cookie",
        [LARDER_HTTP_WHY_VARY] = "vary",
        [LARDER_HTTP_WHY_PARTIAL] = "partial",
        [LARDER_HTTP_WHY_OPEN_ENDED] = "open-ended",
        [LARDER_HTTP_WHY_TOO_LARGE] = "too-large",
        [LARDER_HTTP_WHY_NO_FRESHNESS] = "no-freshness",
    };
    const char *text = reason < sizeof texts / sizeof texts[0] ? texts[reason] : NULL;
    return text == NULL ? "unknown" : text;
}
