/* colib: a variable of which each coroutine has its own, as libco's co_routine_specific.h. C++ only. */

#ifndef CO_ROUTINE_SPECIFIC_H
#define CO_ROUTINE_SPECIFIC_H

#include <pthread.h>
#include <stdlib.h>

#include "co_routine.h"

#ifdef __cplusplus

/* The macro ends in a semicolon, as libco's: programs write one behind it or not. */
#pragma GCC system_header

/**
 * At namespace scope, CO_ROUTINE_SPECIFIC(type, name); makes `name`, a pointer to a `type` of which
 * every coroutine has its own, zeroed at first use (and so has every thread outside its coroutines):
 *
 *     struct Request { int id; char path[256]; };
 *     CO_ROUTINE_SPECIFIC(Request, current);
 *     ...
 *     current->id = 7;
 *
 * `type` is a plain name, without constructor: the memory is from calloc. The library never frees it.
 * `current->` is a null pointer if there is no memory, or if the process has used up the 1024 keys.
 */
#define CO_ROUTINE_SPECIFIC(type, name)                                                            \
                                                                                                   \
	static pthread_once_t co_specific_once_##type = PTHREAD_ONCE_INIT;                             \
	static pthread_key_t co_specific_key_##type;                                                   \
	static bool co_specific_has_key_##type = false;                                                \
                                                                                                   \
	static void co_specific_make_key_##type()                                                      \
	{                                                                                              \
		co_specific_has_key_##type = pthread_key_create(&co_specific_key_##type, 0) == 0;          \
	}                                                                                              \
                                                                                                   \
	class co_specific_pointer_##type {                                                             \
	  public:                                                                                      \
		type *operator->() const { return get(); }                                                 \
		type &operator*() const { return *get(); }                                                 \
                                                                                                   \
		type *get() const                                                                          \
		{                                                                                          \
			pthread_once(&co_specific_once_##type, co_specific_make_key_##type);                   \
			if (!co_specific_has_key_##type)                                                       \
				return 0;                                                                          \
			void *value = co_getspecific(co_specific_key_##type);                                  \
			if (value == 0) {                                                                      \
				value = calloc(1, sizeof(type));                                                   \
				if (value != 0 && co_setspecific(co_specific_key_##type, value) != 0) {            \
					free(value);                                                                   \
					value = 0;                                                                     \
				}                                                                                  \
			}                                                                                      \
			return static_cast<type *>(value);                                                     \
		}                                                                                          \
	};                                                                                             \
                                                                                                   \
	static co_specific_pointer_##type name;

#endif /* __cplusplus */

#endif /* CO_ROUTINE_SPECIFIC_H */
