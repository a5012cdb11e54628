/* Stands where advapi32 stands and writes down what it is called with. The prototypes are those of Windows's own headers
 * (__typeof__), so that a caller whose widths differ from them is heard wrongly. A string with FULL in it is not taken. */
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

__declspec(dllexport) __typeof__(RegisterEventSourceW) Said_RegisterEventSourceW __asm__("RegisterEventSourceW");
__declspec(dllexport) __typeof__(ReportEventW) Said_ReportEventW __asm__("ReportEventW");
__declspec(dllexport) __typeof__(DeregisterEventSource) Said_DeregisterEventSource __asm__("DeregisterEventSource");

/* Wider than 32 bits, as a handle may be. */
#define SOURCE ((HANDLE)0x7edcba9876543210)

static void say(const char *what, LPCWSTR text) {
    FILE *out = fopen(getenv("RECORDED"), "a");
    fprintf(out, "%s", what);
    if (text) {
        fprintf(out, " ");
        for (; *text; text++) fprintf(out, "%04x", (unsigned)*text);
    }
    fprintf(out, "\n");
    fclose(out);
}

HANDLE WINAPI Said_RegisterEventSourceW(LPCWSTR server, LPCWSTR source) {
    say(server ? "open elsewhere" : "open", source);
    return SOURCE;
}

BOOL WINAPI Said_ReportEventW(HANDLE log, WORD type, WORD category, DWORD id, PSID user, WORD strings, DWORD size,
                              LPCWSTR *text, LPVOID raw) {
    char what[96];
    if (log != SOURCE || category || user || strings != 1 || size || raw) {
        SetLastError(ERROR_INVALID_PARAMETER);
        return FALSE;
    }
    if (wcsstr(text[0], L"FULL")) {
        SetLastError(ERROR_LOG_FILE_FULL);
        return FALSE;
    }
    snprintf(what, sizeof what, "report %u %lu", type, id);
    say(what, text[0]);
    return TRUE;
}

BOOL WINAPI Said_DeregisterEventSource(HANDLE log) {
    say(log == SOURCE ? "close" : "close another", NULL);
    return TRUE;
}
