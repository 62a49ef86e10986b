//! Private stacks: slabs of many, each with a guard below it (a page, on aarch64 64 KiB: `pages::guard_size`).
//!
//! ```text
//!   slab:  │guard│ stack 0      ▲│guard│ stack 1      ▲│guard│ stack 2 ...        (addresses grow →)
//!          stack_buffer ──┘      └── stack_bp: the routine starts here and grows ←
//! ```
//!
//! The `StackMem` records lie apart, in the C heap: no overflow reaches them. Guards are installed in
//! batches as the slab fills, before the first use. Each thread keeps some free stacks
//! (`stack_cache`), the rest waits in the slab. [`trim`] gives the memory of free
//! stacks back to the kernel; a slab with none in use is unmapped. A stack may be freed by any thread.

use core::cell::{Cell, UnsafeCell};
use core::ffi::{c_int, c_uint};
use core::mem::size_of;
use core::ptr::{NonNull, null, null_mut};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use crate::routine::coroutine::Coroutine;
use crate::routine::watched::area_of;
use crate::sys::heap::{self, Zeroed};
use crate::sys::lock::Lock;
use crate::sys::pages;
use crate::sys::tools;
use crate::util::list::{Link, List};

/// One stack, as C sees it (stStackMem_t).
#[repr(C)]
pub(crate) struct StackMem {
    /// Copy stacks: whose bytes lie on it. A free private stack: the next free one.
    pub(crate) occupy_co: Cell<*const Coroutine>,
    pub(crate) stack_size: Cell<c_int>,
    /// Private stacks: place in the slab, and whether its pages may be touched. Copy stacks: valgrind's number.
    tag: Cell<u32>,
    pub(crate) stack_bp: Cell<*mut u8>,
    pub(crate) stack_buffer: Cell<*mut u8>,
}

const _: () = assert!(size_of::<StackMem>() == 32);

// SAFETY: null pointers and zeros; filled before use.
unsafe impl Zeroed for StackMem {}

/// Where the processor-specific code finds what it looks at.
pub(crate) mod at {
    use super::StackMem;
    use core::mem::offset_of;

    pub(crate) const TAG: usize = offset_of!(StackMem, tag);
    pub(crate) const STACK_BP: usize = offset_of!(StackMem, stack_bp);
}

/// Private stacks start at different places of their last page.
pub(crate) const COLOURS: u32 = 16;

impl StackMem {
    /// Bytes a routine may use.
    #[inline(always)]
    pub(crate) fn size(&self) -> usize {
        self.stack_size.get() as usize
    }

    /// Of a copy stack: whose bytes lie on it. (Atomic, at no cost: when their thread has ended any threads may release them,
    /// and look here.)
    #[inline(always)]
    pub(crate) fn occupant(&self) -> *const Coroutine {
        self.occupant_word().load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set_occupant(&self, co: *const Coroutine) {
        self.occupant_word().store(co.cast_mut(), Ordering::Relaxed);
    }

    fn occupant_word(&self) -> &AtomicPtr<Coroutine> {
        // SAFETY: an aligned pointer of a live record. Those of copy stacks are used by this function alone.
        unsafe { AtomicPtr::from_ptr(self.occupy_co.as_ptr().cast()) }
    }

    /// Where a routine starts on this private stack. All stacks end at the same place of a page, and
    /// would compete for the same lines of the cache: each starts some lines lower than its neighbour.
    #[inline(always)]
    pub(crate) fn start(&self) -> *mut u8 {
        let colour = (self.tag.get() & (COLOURS - 1)) as usize;
        self.stack_bp.get().wrapping_sub(colour * 64)
    }
}

/// The pages may hold something since they were last given back.
const DIRTY: u32 = 1 << 31;
const PLACE: u32 = 0xffff;

/// A slab is at most this long, and has at most `PLACE` stacks.
const SLAB_BYTES: usize = 64 * 1024 * 1024;
const FIRST_SLAB: usize = 8;
const LARGEST_SLAB: usize = 512;

/// In front of a slab's `StackMem` records.
#[repr(C)]
struct Slab {
    /// In its class's list of slabs.
    link: Link,
    class: Cell<*const Class>,
    base: Cell<*mut u8>,
    /// Free stacks that are in no thread's cache, by `occupy_co`.
    free: Cell<*const StackMem>,
    count: Cell<u32>,
    /// How many have their guard and were used at least once.
    opened: Cell<u32>,
    /// How many are with threads: in use, or in a cache.
    out: Cell<u32>,
    /// How many guards go back by `pages::give_back_mapped`.
    mapped: Cell<u32>,
    /// Valgrind's numbers of the opened ones, null without it.
    numbers: Cell<*mut c_uint>,
}

/// Room for the header, in whole records.
const HEADER: usize = 64;
const _: () = assert!(size_of::<Slab>() <= HEADER && HEADER.is_multiple_of(size_of::<StackMem>()));

/// All slabs of one stack size.
#[repr(C)]
pub(super) struct Class {
    link: Link,
    /// Slabs with a stack to give first.
    slabs: List,
    size: Cell<usize>,
    next_count: Cell<usize>,
}

// SAFETY: null pointers and zeros; filled before use.
unsafe impl Zeroed for Slab {}
// SAFETY: as above.
unsafe impl Zeroed for Class {}
// SAFETY: a number.
unsafe impl Zeroed for c_uint {}

impl Class {
    /// Bytes from one stack to the next: its guard and itself.
    fn stride(&self) -> usize {
        self.size.get() + pages::guard_size()
    }
}

struct Central {
    lock: Lock,
    classes: UnsafeCell<List>,
}

// SAFETY: `classes` and everything below it is touched with the lock held.
unsafe impl Sync for Central {}

static CENTRAL: Central = Central { lock: Lock::new(), classes: UnsafeCell::new(List::new()) };

/// Stacks given back since the last trim: nothing to do below a handful.
static IDLE: AtomicUsize = AtomicUsize::new(0);

/// Runs `section` with the slabs locked.
pub(super) fn locked<R>(section: impl FnOnce() -> R) -> R {
    CENTRAL.lock.with(section)
}

/// Set when a thread needed stacks from the slabs.
static NEEDED: AtomicBool = AtomicBool::new(false);

/// Whether stacks were given back and none was needed since the last call.
pub(crate) fn unused_since_last_asked() -> bool {
    !NEEDED.swap(false, Ordering::Relaxed) && IDLE.load(Ordering::Relaxed) > 0
}

/// Held across fork, so that the child finds the slabs whole.
pub(crate) fn fork_lock() -> &'static Lock {
    &CENTRAL.lock
}

/// As [`Cache::put`](super::stack_cache::Cache::put), for a thread without a cache.
///
/// # Safety
/// As there.
pub(crate) unsafe fn put_central(stack: NonNull<StackMem>) {
    // SAFETY: the lock is held; as the caller vouches.
    CENTRAL.lock.with(|| unsafe { put_back(stack.as_ptr()) });
}

/// As [`Cache::take`](super::stack_cache::Cache::take), for a thread without a cache.
pub(crate) fn take_central(size: usize) -> Option<NonNull<StackMem>> {
    let stack = CENTRAL.lock.with(|| {
        // SAFETY: the lock is held.
        let class = unsafe { class_of(size) }?;
        // SAFETY: the lock is held.
        unsafe { take_from(class, true) }
    });
    pages::say_if_unguarded();
    stack
}

/// # Safety
/// The lock is held.
pub(super) unsafe fn class_of(size: usize) -> Option<&'static Class> {
    // SAFETY: the lock makes this thread the only user.
    let classes = unsafe { &*CENTRAL.classes.get() };
    let mut at = classes.first();
    while let Some(link) = at {
        // SAFETY: `link` is the first member of a Class, which is never freed.
        let class = unsafe { &*link.cast::<Class>() };
        if class.size.get() == size {
            return Some(class);
        }
        at = classes.after(link);
    }
    let class = heap::alloc::<Class>()?;
    // SAFETY: never freed from here on.
    let class = unsafe { class.as_ref() };
    class.size.set(size);
    class.next_count.set(FIRST_SLAB);
    // SAFETY: never moved or freed.
    unsafe { classes.push_back(&class.link) };
    Some(class)
}

/// A stack from the first slab that has one; a new slab only if `may_grow`.
///
/// # Safety
/// The lock is held.
pub(super) unsafe fn take_from(class: &'static Class, may_grow: bool) -> Option<NonNull<StackMem>> {
    NEEDED.store(true, Ordering::Relaxed);
    let mut at = class.slabs.first();
    while let Some(link) = at {
        // SAFETY: `link` is the first member of a live Slab.
        let slab = unsafe { &*link.cast::<Slab>() };
        if let Some(stack) = slab.take(may_grow) {
            // Full slabs go last, so the search stays short.
            if slab.free.get().is_null() && slab.opened.get() == slab.count.get() {
                slab.link.unlink();
                // SAFETY: the slab stays where it is until it is unmapped, after an unlink.
                unsafe { class.slabs.push_back(&slab.link) };
            }
            return Some(stack);
        }
        if slab.out.get() == slab.count.get() {
            // The first full one: so are all behind it.
            break;
        }
        at = class.slabs.after(link);
    }
    if !may_grow {
        return None;
    }
    new_slab(class)?.take(true)
}

fn new_slab(class: &'static Class) -> Option<&'static Slab> {
    let stride = class.stride();
    let mut count = class.next_count.get().min(SLAB_BYTES / stride).max(1);
    let base = loop {
        match pages::reserve(count * stride) {
            Ok(base) => break base,
            Err(_) if count > 1 => count /= 2,
            Err(_) => return None,
        }
    };
    let records = HEADER / size_of::<StackMem>() + count;
    let Some(slab) = heap::alloc_array::<StackMem>(records) else {
        // SAFETY: just reserved, unused.
        unsafe { pages::release(base, count * stride) };
        return None;
    };
    class.next_count.set((count * 4).min(LARGEST_SLAB));
    // SAFETY: the first records' place is the header's; zeroed is valid, and alive until unmapped.
    let slab = unsafe { slab.cast::<Slab>().as_ref() };
    slab.class.set(class);
    slab.base.set(base);
    slab.count.set(count as u32);
    if tools::on_valgrind() {
        slab.numbers.set(heap::alloc_array::<c_uint>(count).map_or(null_mut(), NonNull::as_ptr));
    }
    // SAFETY: the slab stays in the C heap until after an unlink.
    unsafe { class.slabs.push_front(&slab.link) };
    Some(slab)
}

impl Slab {
    fn record(&self, place: u32) -> &StackMem {
        let records = (&raw const *self).cast::<u8>().wrapping_add(HEADER).cast::<StackMem>();
        // SAFETY: `count` records follow the header, `place` is below it.
        unsafe { &*records.wrapping_add(place as usize) }
    }

    fn stride(&self) -> usize {
        // SAFETY: classes are never freed.
        unsafe { &*self.class.get() }.stride()
    }

    fn take(&self, may_open: bool) -> Option<NonNull<StackMem>> {
        let free = self.free.get();
        let stack = if free.is_null() {
            if self.opened.get() == self.count.get() || !may_open {
                return None;
            }
            self.open()?;
            self.free.get()
        } else {
            free
        };
        // SAFETY: a record of this slab.
        let stack = unsafe { &*stack };
        self.free.set(stack.occupy_co.replace(null()).cast());
        self.out.set(self.out.get() + 1);
        stack.tag.set(stack.tag.get() | DIRTY);
        Some(NonNull::from(stack))
    }

    /// Guards the next batch and puts it among the free ones.
    fn open(&self) -> Option<()> {
        let from = self.opened.get();
        let batch = from.max(4).min(self.count.get() - from);
        let (stride, guard) = (self.stride(), pages::guard_size());
        let first = self.base.get().wrapping_add(from as usize * stride);
        // SAFETY: the first pages of each of these stacks' places, unused so far.
        let mapped = unsafe { pages::guard(first, stride, batch as usize) }.ok()?;
        self.mapped.set(self.mapped.get() + mapped as u32);
        // Backwards, so that the lowest comes out first.
        for place in (from..from + batch).rev() {
            let stack = self.record(place);
            let buffer = self.base.get().wrapping_add(place as usize * stride + guard);
            stack.stack_size.set((stride - guard) as c_int);
            stack.tag.set(place);
            stack.stack_buffer.set(buffer);
            stack.stack_bp.set(buffer.wrapping_add(stride - guard));
            stack.occupy_co.set(self.free.get().cast());
            self.free.set(stack);
            if tools::any() {
                self.make_known(place);
            }
        }
        self.opened.set(from + batch);
        Some(())
    }

    /// Tells the tools that watch the program of an opened stack.
    fn make_known(&self, place: u32) {
        let number = tools::stack_made(area_of(self.record(place)));
        if !self.numbers.get().is_null() {
            // SAFETY: one for each of the slab's stacks.
            unsafe { self.numbers.get().wrapping_add(place as usize).write(number) };
        }
    }

    /// Tells them that the stacks go.
    fn make_forgotten(&self) {
        for place in 0..self.opened.get() {
            let number = match self.numbers.get() {
                numbers if numbers.is_null() => 0,
                // SAFETY: as in `make_known`.
                numbers => unsafe { numbers.wrapping_add(place as usize).read() },
            };
            tools::stack_gone(area_of(self.record(place)), number);
        }
        // SAFETY: null or from the C heap, used no more.
        unsafe { libc::free(self.numbers.get().cast()) };
    }

    fn of(stack: &StackMem) -> *const Slab {
        let place = (stack.tag.get() & PLACE) as usize;
        let records = (&raw const *stack).wrapping_sub(place);
        records.cast::<u8>().wrapping_sub(HEADER).cast()
    }
}

/// # Safety
/// The lock is held; nobody runs on the stack.
pub(super) unsafe fn put_back(stack: *const StackMem) {
    // SAFETY: a record lives as long as its slab, which has this stack out.
    let stack = unsafe { &*stack };
    // SAFETY: every record lies behind its slab's header.
    let slab = unsafe { &*Slab::of(stack) };
    let was_full = slab.free.get().is_null() && slab.opened.get() == slab.count.get();
    stack.occupy_co.set(slab.free.get().cast());
    slab.free.set(stack);
    slab.out.set(slab.out.get() - 1);
    IDLE.fetch_add(1, Ordering::Relaxed);
    if was_full {
        // SAFETY: classes are never freed.
        let class = unsafe { &*slab.class.get() };
        slab.link.unlink();
        // SAFETY: the slab stays where it is until it is unmapped, after an unlink.
        unsafe { class.slabs.push_front(&slab.link) };
    }
}

/// How many stacks the slabs have made so far, and their bytes: those in use and those that wait for use.
pub(super) fn made() -> (u64, u64) {
    let (mut count, mut bytes) = (0, 0);
    CENTRAL.lock.with(|| {
        // SAFETY: the lock is held.
        let classes = unsafe { &*CENTRAL.classes.get() };
        classes.each(|link| {
            // SAFETY: `link` is the first member of a Class, never freed.
            let class = unsafe { &*link.cast::<Class>() };
            class.slabs.each(|link| {
                // SAFETY: `link` is the first member of a live Slab.
                let slab = unsafe { &*link.cast::<Slab>() };
                let opened = u64::from(slab.opened.get());
                count += opened;
                bytes += opened * class.size.get() as u64;
            });
        });
    });
    (count, bytes)
}

/// Gives the memory of free stacks back to the kernel, if `at_least` came back since the last time.
pub(crate) fn trim(at_least: usize) {
    if IDLE.load(Ordering::Relaxed) < at_least.max(1) {
        return;
    }
    trim_with(|_| {});
}

/// As [`trim`], also of the stacks that `others` names: in use, by coroutines that need nothing on them. The
/// slabs are locked meanwhile.
pub(crate) fn trim_with(others: impl FnOnce(&mut dyn FnMut(&StackMem))) {
    CENTRAL.lock.with(|| {
        others(&mut |stack| stack.tag.set(stack.tag.get() | FREE_MARK | DIRTY));
        IDLE.store(0, Ordering::Relaxed);
        // SAFETY: the lock is held.
        let classes = unsafe { &*CENTRAL.classes.get() };
        let mut at = classes.first();
        while let Some(link) = at {
            at = classes.after(link);
            // SAFETY: `link` is the first member of a Class, never freed.
            let class = unsafe { &*link.cast::<Class>() };
            let mut slab_at = class.slabs.first();
            while let Some(link) = slab_at {
                slab_at = class.slabs.after(link);
                // SAFETY: the lock is held; `link` is the first member of a live Slab.
                unsafe { trim_slab(class, link.cast_mut().cast()) };
            }
        }
    });
}

/// # Safety
/// The lock is held, `slab` is one of `class`.
unsafe fn trim_slab(class: &Class, slab: *mut Slab) {
    let Some(pointer) = NonNull::new(slab) else { return };
    // SAFETY: as the caller vouches.
    let slab = unsafe { pointer.as_ref() };
    let stride = slab.stride();
    if slab.out.get() == 0 {
        slab.link.unlink();
        if class.slabs.is_empty() {
            class.next_count.set(FIRST_SLAB);
        }
        if tools::any() {
            slab.make_forgotten();
        }
        // SAFETY: no stack of it is with anybody.
        unsafe { pages::release(slab.base.get(), slab.count.get() as usize * stride) };
        pages::give_back_mapped(slab.mapped.get() as usize);
        // SAFETY: unlinked, and nobody has a record of it.
        unsafe { heap::free(pointer) };
        return;
    }
    // Mark the free ones by a bit of their own, then give back each run of them in one call.
    let mut at = slab.free.get();
    while !at.is_null() {
        // SAFETY: a record of this slab.
        let stack = unsafe { &*at };
        stack.tag.set(stack.tag.get() | FREE_MARK);
        at = stack.occupy_co.get().cast();
    }
    let mut place = 0;
    while place < slab.opened.get() {
        let start = place;
        let mut dirty = false;
        while place < slab.opened.get() && slab.record(place).tag.get() & FREE_MARK != 0 {
            let tag = &slab.record(place).tag;
            dirty |= tag.get() & DIRTY != 0;
            tag.set(tag.get() & !(FREE_MARK | DIRTY));
            place += 1;
        }
        if dirty {
            let first = slab.base.get().wrapping_add(start as usize * stride);
            // SAFETY: free stacks and their guards, which survive this.
            unsafe { pages::discard(first, (place - start) as usize * stride) };
        }
        place = place.max(start + 1);
    }
}

const FREE_MARK: u32 = 1 << 30;

/// A stack outside any slab, for copy stacks: a guard below `size` bytes (whole pages). Never freed
/// before the process ends, as in the original: there is no call for it. Returns how many guards go back by
/// `pages::give_back_mapped` if it is undone.
pub(crate) fn alone(size: usize, record: &StackMem) -> Option<usize> {
    let guard = pages::guard_size();
    let base = pages::reserve(size + guard).ok()?;
    // SAFETY: the lowest pages of a fresh mapping.
    let Ok(mapped) = (unsafe { pages::guard(base, guard, 1) }) else {
        // SAFETY: ours, unused.
        unsafe { pages::release(base, size + guard) };
        return None;
    };
    record.set_occupant(null());
    record.stack_size.set(size as c_int);
    record.stack_buffer.set(base.wrapping_add(guard));
    record.stack_bp.set(base.wrapping_add(guard + size));
    record.tag.set(tools::stack_made(area_of(record)));
    Some(mapped)
}

/// Undoes [`alone`].
///
/// # Safety
/// Nobody runs on it or ever will.
pub(crate) unsafe fn free_alone(record: &StackMem) {
    tools::stack_gone(area_of(record), record.tag.get());
    let base = record.stack_buffer.replace(null_mut()).wrapping_sub(pages::guard_size());
    // SAFETY: as the caller vouches.
    unsafe { pages::release(base, record.stack_size.get() as usize + pages::guard_size()) };
}
