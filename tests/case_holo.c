#include "pages.h"
void test_cases_holo(test_cases *cases) { (void)cases; }
