//! Which file a code address belongs to, by the kernel's list of mappings: without locks, so also in a signal handler.

use core::ffi::{c_int, c_long};
use core::fmt;

/// Of a file's path, the last so many bytes are kept.
const NAME: usize = 96;

/// A code address, and where it is in its file: what addr2line takes.
pub(crate) struct Place {
    address: usize,
    offset: usize,
    name: [u8; NAME],
    len: usize,
}

impl Place {
    pub(crate) fn of(address: usize) -> Place {
        let mut place = Place { address, offset: 0, name: [0; NAME], len: 0 };
        let mut first = FirstPage::default();
        each_line(|line| {
            let Some(mapping) = Mapping::parse(line) else { return true };
            if mapping.file_offset == 0 {
                first = FirstPage { start: mapping.start, inode: mapping.inode, readable: mapping.readable };
            }
            if address < mapping.start || address >= mapping.end {
                return true;
            }
            if mapping.name.first() == Some(&b'/') {
                let tail = &mapping.name[mapping.name.len().saturating_sub(NAME)..];
                place.name[..tail.len()].copy_from_slice(tail);
                place.len = tail.len();
                place.offset = match first.of(&mapping) {
                    Some(start) => address - if is_fixed(start) { 0 } else { start },
                    None => address - mapping.start + mapping.file_offset,
                };
            }
            false
        });
        place
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.address)?;
        match core::str::from_utf8(&self.name[..self.len]) {
            Ok(name) if !name.is_empty() => {
                let name = name.rsplit('/').next().unwrap_or(name);
                write!(f, " = {name}+0x{:x}", self.offset)
            }
            _ => Ok(()),
        }
    }
}

/// Of the mappings so far, the last that has the beginning of something.
#[derive(Default)]
struct FirstPage {
    start: usize,
    inode: usize,
    readable: bool,
}

impl FirstPage {
    /// Where `mapping`'s file begins in memory, if that may be read: a program may have mapped a part of a file that has
    /// code, and what lies before it is something else then, a guard page for instance.
    fn of(&self, mapping: &Mapping<'_>) -> Option<usize> {
        (self.readable && self.inode == mapping.inode && self.inode != 0).then_some(self.start)
    }
}

/// Whether the program mapped at `start` lies where it was linked to (ET_EXEC), so that its addresses are those of the file.
fn is_fixed(start: usize) -> bool {
    const TYPE: usize = 16;
    const EXEC: u16 = 2;
    // SAFETY: a file's first page, which may be read (`FirstPage`). Any bytes are a number.
    let kind = unsafe { core::ptr::with_exposed_provenance::<u16>(start + TYPE).read() };
    kind == EXEC
}

struct Mapping<'a> {
    start: usize,
    end: usize,
    readable: bool,
    file_offset: usize,
    inode: usize,
    name: &'a [u8],
}

impl Mapping<'_> {
    /// `START-END PERMISSIONS OFFSET DEVICE INODE NAME`
    fn parse(line: &[u8]) -> Option<Mapping<'_>> {
        let mut words = line.splitn(6, |&byte| byte == b' ');
        let mut range = words.next()?.splitn(2, |&byte| byte == b'-');
        let (start, end) = (hex(range.next()?)?, hex(range.next()?)?);
        let readable = words.next()?.starts_with(b"r");
        let file_offset = hex(words.next()?)?;
        let inode = core::str::from_utf8(words.nth(1)?).ok()?.parse().ok()?;
        let name = words.next().unwrap_or_default().trim_ascii();
        Some(Mapping { start, end, readable, file_offset, inode, name })
    }
}

fn hex(digits: &[u8]) -> Option<usize> {
    usize::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

/// Reads the list, until `each` says false. Lines that are too long are cut.
fn each_line(mut each: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0u8; 1024];
    let path = c"/proc/self/maps".as_ptr();
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: a path; past our own hooks.
    let fd = unsafe { libc::syscall(libc::SYS_openat, c_long::from(libc::AT_FDCWD), path, flags, 0) };
    if fd < 0 {
        return;
    }
    let mut len = 0;
    let mut go_on = true;
    while go_on {
        let room = buffer.len() - len;
        // SAFETY: writes at most `room` bytes of the buffer.
        let got = unsafe { libc::syscall(libc::SYS_read, fd, buffer[len..].as_mut_ptr(), room) };
        if got <= 0 {
            break;
        }
        len += got as usize;
        while go_on && let Some(end) = buffer[..len].iter().position(|&byte| byte == b'\n') {
            go_on = each(&buffer[..end]);
            buffer.copy_within(end + 1..len, 0);
            len -= end + 1;
        }
        if len == buffer.len() {
            len = 0; // a path longer than the buffer
        }
    }
    crate::sys::epoll::close(fd as c_int);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_found_in_its_program() {
        let place = Place::of(hex as *const () as usize);
        let program = std::env::current_exe().unwrap();
        let name = program.file_name().unwrap().to_str().unwrap();
        assert!(place.to_string().contains(&format!(" = {name}+0x")), "{place}");
        assert_eq!(Place::of(1).to_string(), "0x1");
    }
}
