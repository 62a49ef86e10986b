/* co_log_err takes printf arguments. Rust cannot define a C variadic function, so the exported
 * name jumps here with every argument register untouched. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

/* Filled in by the library when it is loaded. */
struct colib_log_sink {
	int (*wanted)(void);
	void (*line)(const char *text, size_t length);
};
struct colib_log_sink colib_log_sink;

void colib_log_format(const char *fmt, ...)
{
	char line[1024];
	va_list args;
	int length;

	if (fmt == NULL || colib_log_sink.wanted == NULL || !colib_log_sink.wanted())
		return;
	va_start(args, fmt);
	length = vsnprintf(line, sizeof line, fmt, args);
	va_end(args);
	if (length < 0)
		return;
	colib_log_sink.line(line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
}
