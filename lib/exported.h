/* exported.h: gives the functions of the public headers default visibility while lib/ is compiled
 * with -fvisibility=hidden, so that they need no macros. The compiler is told to read this before
 * every file of lib/ (lib/Makefile.inc); nothing includes it, and it declares nothing else.
 */
#ifndef LARDER_LIB_EXPORTED_H
#define LARDER_LIB_EXPORTED_H

#pragma GCC visibility push(default)
#include "larder.h"
#include "larder_http.h"
#include "larder_session.h"
#pragma GCC visibility pop

#endif
