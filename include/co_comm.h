/* colib: a mutex between coroutines of one thread, as libco's co_comm.h. C++ only. */

#ifndef CO_COMM_H
#define CO_COMM_H

#include "co_routine.h"

#ifdef __cplusplus

/**
 * A mutex between coroutines of one thread; not to be copied. Fair: who waits longest gets it next. Not recursive. A
 * waiting coroutine that is released hands its turn on. As libco, where both of these go wrong.
 *
 * CoLock: waits until the mutex is free; other coroutines run meanwhile. On the main coroutine, which
 * cannot wait, the thread's loop runs until then.
 * CoUnLock: hands the mutex to the first waiter.
 */
class clsCoMutex {
  public:
	clsCoMutex();
	~clsCoMutex();

	void CoLock();
	void CoUnLock();

  private:
	stCoCond_t *m_ptCondSignal;
	int m_iWaitItemCnt;
};

/** Holds a clsCoMutex for as long as it lives. */
class clsSmartLock {
  public:
	clsSmartLock(clsCoMutex *mutex) : m_ptMutex(mutex) { m_ptMutex->CoLock(); }
	~clsSmartLock() { m_ptMutex->CoUnLock(); }

  private:
	clsCoMutex *m_ptMutex;
};

#endif /* __cplusplus */

#endif /* CO_COMM_H */
