//! Private environment variables against a map for each coroutine: names given in any order, twice, empty or NULL; set,
//! read, unset, kept over, freed with their coroutine.

use core::ffi::CStr;
use core::ptr::{null, null_mut};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;

use super::bytes::Bytes;
use crate::routine::{Co, env, environ};

const COROUTINES: usize = 4;

/// Names that are beginnings of each other, as often as not.
fn a_name(bytes: &mut Bytes) -> CString {
    const LETTERS: [u8; 4] = [b'A', b'B', b'_', 0xe4];
    let length = bytes.below(5);
    CString::new((0..length).map(|_| LETTERS[bytes.below(LETTERS.len())]).collect::<Vec<_>>())
        .expect("no letter is a zero")
}

type Values = BTreeMap<CString, CString>;

struct Game {
    names: BTreeSet<CString>,
    coroutines: [Option<(Co, Values)>; COROUTINES],
}

fn create() -> Co {
    let env = env::current_or_new().expect("there is memory");
    crate::routine::create(env, 0, None, None, null_mut()).expect("there is memory")
}

impl Game {
    /// Gives the process its list: the first one wins.
    fn new(bytes: &mut Bytes) -> Self {
        environ::forget_names();
        let mut names = BTreeSet::new();
        for first in [true, false] {
            let list: Vec<_> =
                (0..bytes.below(12)).map(|_| (bytes.below(8) != 0).then(|| a_name(bytes))).collect();
            let pointers: Vec<_> =
                list.iter().map(|name| name.as_ref().map_or(null(), |name| name.as_ptr())).collect();
            // SAFETY: so many pointers, each null or a string.
            let set = unsafe { environ::set_names(pointers.as_ptr(), pointers.len()) };
            assert_eq!(set, Ok(()));
            if first {
                names = list.into_iter().flatten().filter(|name| !name.is_empty()).collect();
                assert_eq!(environ::in_use(), !pointers.is_empty());
                if pointers.is_empty() {
                    break;
                }
            }
        }
        Game { names, coroutines: [const { None }; COROUTINES] }
    }

    fn check(&self, name: &CStr) {
        for (co, values) in self.coroutines.iter().flatten() {
            let value = environ::get(*co, name);
            assert_eq!(value.is_some(), self.names.contains(name), "{name:?}");
            // SAFETY: null or a string that the library keeps.
            let text = value.and_then(|value| (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }));
            assert_eq!(text, values.get(name).map(CString::as_c_str), "{name:?}");
        }
    }

    fn set(&mut self, index: usize, name: CString, value: Option<&[u8]>, overwrite: bool) {
        let Some((co, values)) = &mut self.coroutines[index] else { return };
        let value = value.map(|bytes| CString::new(bytes.split(|&byte| byte == 0).next().unwrap_or(b"")));
        let value = value.map(|text| text.expect("no zero is left"));
        let done = environ::set(*co, &name, value.as_deref(), overwrite);
        if !self.names.contains(&name) {
            return assert_eq!(done, None);
        }
        assert_eq!(done, Some(Ok(())));
        match value {
            None => drop(values.remove(&name)),
            Some(_) if values.contains_key(&name) && !overwrite => {}
            Some(text) => drop(values.insert(name, text)),
        }
    }
}

pub(super) fn play(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut game = Game::new(&mut bytes);
    while !bytes.is_empty() {
        let (action, index) = (bytes.below(8), bytes.below(COROUTINES));
        match action {
            0 => {
                game.coroutines[index] = match game.coroutines[index].take() {
                    None => Some((create(), Values::new())),
                    Some((co, _)) => {
                        crate::routine::release(co);
                        None
                    }
                }
            }
            1..=4 => {
                let (name, overwrite) = (a_name(&mut bytes), bytes.coin());
                let length = bytes.below(6);
                let value = bytes.take(length);
                game.set(index, name.clone(), Some(value), overwrite);
                game.check(&name);
            }
            5 => {
                let name = a_name(&mut bytes);
                game.set(index, name.clone(), None, true);
                game.check(&name);
            }
            _ => game.check(&a_name(&mut bytes)),
        }
    }
    for (co, _) in game.coroutines.into_iter().flatten() {
        crate::routine::release(co);
    }
    environ::forget_names();
}
