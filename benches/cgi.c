/* The script that cgi.py runs. A query is the number of seconds to wait first: /cgi-bin/hello?60 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(void) {
    const char *query = getenv("QUERY_STRING");
    if (query && *query) sleep(atoi(query));
    return fputs("Content-Type: text/plain\n\nhello\n", stdout) < 0;
}
