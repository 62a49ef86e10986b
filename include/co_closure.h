/* colib: closures for compilers without lambdas, as libco's co_closure.h. C++ only.
 *
 *     int total = 0, step = 3;
 *     co_ref(shared, total);              // shared.total is total itself
 *     co_func(add, shared, step)          // add keeps copies of both
 *     {
 *         shared.total += step;           // the body of exec()
 *     }
 *     co_func_end;
 *
 *     stCoClosure_t *work = new add(shared, step);
 *     work->exec();
 *     delete work;
 *
 * Up to six names each. */

#ifndef CO_CLOSURE_H
#define CO_CLOSURE_H

#ifdef __cplusplus

/* The macros need what compilers call extensions before C++20 (no arguments for ...), and co_ref ends in a
 * semicolon, as libco's: programs write one behind it or not. */
#pragma GCC system_header

/** Something to do. */
struct stCoClosure_t {
  public:
	virtual void exec() = 0;
	virtual ~stCoClosure_t() {}
};

/* How many arguments: 0 to 6. */
#define comac_argc(...) comac_pick_8th(0, ##__VA_ARGS__, 6, 5, 4, 3, 2, 1, 0)
#define comac_pick_8th(a0, a1, a2, a3, a4, a5, a6, n, ...) n

#define comac_join(x, y) comac_join_now(x, y)
#define comac_join_now(x, y) x##y

/* do_(a) for every argument. */
#define comac_each(do_, ...) comac_join(comac_each_, comac_argc(__VA_ARGS__))(do_, ##__VA_ARGS__)
#define comac_each_0(do_)
#define comac_each_1(do_, a) do_(a)
#define comac_each_2(do_, a, b) do_(a) do_(b)
#define comac_each_3(do_, a, b, c) do_(a) do_(b) do_(c)
#define comac_each_4(do_, a, b, c, d) do_(a) do_(b) do_(c) do_(d)
#define comac_each_5(do_, a, b, c, d, e) do_(a) do_(b) do_(c) do_(d) do_(e)
#define comac_each_6(do_, a, b, c, d, e, f) do_(a) do_(b) do_(c) do_(d) do_(e) do_(f)

#if __cplusplus <= 199711L
#define comac_typeof(a) __typeof__(a)
#else
#define comac_typeof(a) decltype(a)
#endif

#define comac_name_type(a) typedef comac_typeof(a) typeof_##a;
#define comac_member_reference(a) typeof_##a &a;
#define comac_member_copy(a) typeof_##a a;
#define comac_parameter(a) typeof_##a &a##_from,
#define comac_initialise(a) a(a##_from),

/** Declares `name`, an object whose members refer to the variables given. */
#define co_ref(name, ...)                                                                          \
	comac_each(comac_name_type, ##__VA_ARGS__)                                                     \
	class type_##name {                                                                            \
	  public:                                                                                      \
		comac_each(comac_member_reference, ##__VA_ARGS__)                                          \
		int _member_cnt;                                                                           \
		type_##name(comac_each(comac_parameter, ##__VA_ARGS__) int count)                          \
			: comac_each(comac_initialise, ##__VA_ARGS__) _member_cnt(count)                       \
		{                                                                                          \
		}                                                                                          \
	} name(comac_each(comac_argument, ##__VA_ARGS__) comac_argc(__VA_ARGS__));

#define comac_argument(a) a,

/** Begins class `name`, a stCoClosure_t that keeps copies of the variables given; the body of exec()
 * follows in braces, then co_func_end. */
#define co_func(name, ...)                                                                         \
	comac_each(comac_name_type, ##__VA_ARGS__)                                                     \
	class name : public stCoClosure_t {                                                            \
	  public:                                                                                      \
		comac_each(comac_member_copy, ##__VA_ARGS__)                                               \
		int _member_cnt;                                                                           \
		name(comac_each(comac_parameter, ##__VA_ARGS__) int count = comac_argc(__VA_ARGS__))       \
			: comac_each(comac_initialise, ##__VA_ARGS__) _member_cnt(count)                       \
		{                                                                                          \
		}                                                                                          \
		void exec()

/** Ends what co_func began. */
#define co_func_end }

#endif /* __cplusplus */

#endif /* CO_CLOSURE_H */
