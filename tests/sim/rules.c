/* rules.c: the table of rules. */
#include "tests/sim/rules.h"

enum rule rule_switched_off;

const struct rule_row rules[RULE_COUNT] = {[RULE_NONE] = {"none", "", 0, ""}};
