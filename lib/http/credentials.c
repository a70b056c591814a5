/* credentials.c: see credentials.h.
 */
#include "http/credentials.h"

#include "http/headers.h"
#include "http/text.h"
#include "http/vary.h"

static const struct {
    const char *name;
    uint32_t flag;
} kinds[] = {
    {"authorization", LARDER_HTTP_STORED_AUTHORIZATION},
    {"cookie", LARDER_HTTP_STORED_COOKIE},
};

uint32_t credentials_of(const larder_http_request *request)
{
    struct headers headers = headers_of_request(request);
    uint32_t found = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        found |= headers_have(headers, kinds[i].name) ? kinds[i].flag : 0;
    }
    return found;
}

uint32_t credentials_that_matter(const larder_http_policy *policy)
{
    if ((policy->flags & LARDER_HTTP_SHARED) == 0) {
        return LARDER_HTTP_STORED_AUTHORIZATION | LARDER_HTTP_STORED_COOKIE;
    }
    /* Authorization is not for a gateway's operator to wave through: RFC 9111, 3.5 is a MUST NOT.
     */
    return policy->kind == LARDER_HTTP_GATEWAY ? LARDER_HTTP_STORED_AUTHORIZATION : 0;
}

bool credentials_allow(const larder_http_policy *policy, const larder_http_request *request,
                       const larder_http_stored *stored)
{
    uint32_t matter = credentials_that_matter(policy) & (credentials_of(request) | stored->flags);
    if ((stored->flags & LARDER_HTTP_STORED_PUBLIC) != 0) {
        return true;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if ((matter & kinds[i].flag) != 0 && !vary_has(stored->vary, text_of(kinds[i].name))) {
            return false;
        }
    }
    return true;
}
