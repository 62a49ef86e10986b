//! Small data structures with no opinion about coroutines.

pub(crate) mod count;
pub(crate) mod list;
pub(crate) mod pool;
pub(crate) mod size_class;
