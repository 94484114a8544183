//! The variables of another process as they are now.
//!
//! `/proc/PID/environ` shows what a process was started with and never changes. What `setenv` does is only in
//! the process's memory, behind libc's `environ`, so that is where it is read: found by name in the symbols of
//! the libc that the process has mapped, or of its program, and read through `/proc/PID/mem`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;

/// Most variables that are read; the rest of a longer list is garbage.
const MOST: u64 = 4096;

/// Most bytes of a variable that are compared.
const LONGEST: usize = 4096;

/// The variables of a process, whose `environ` is at `address`.
pub(super) fn read(pid: u32, address: u64) -> io::Result<BTreeMap<String, String>> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut list = pointer(&memory, address)?;
    let mut variables = BTreeMap::new();
    for _ in 0..MOST {
        let entry = pointer(&memory, list)?;
        if entry == 0 {
            break;
        }
        let mut text = vec![0; LONGEST];
        let length = memory.read_at(&mut text, entry)?;
        text.truncate(length);
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        if let Some((name, value)) = text.split_once('=') {
            variables.insert(name.to_owned(), value.to_owned());
        }
        list += 8;
    }
    Ok(variables)
}

fn pointer(memory: &File, address: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    memory.read_exact_at(&mut bytes, address)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Where the process keeps `environ`: in its program, if the linker copied it there, else in its libc.
pub(super) fn address(pid: u32) -> io::Result<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let program = fs::read_link(format!("/proc/{pid}/exe"))?;
    let starts = maps.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, offset, path) = (fields.next()?, fields.nth(1)?, fields.nth(2)?);
        let start = u64::from_str_radix(range.split_once('-')?.0, 16).ok()?;
        (offset == "00000000").then_some((path, start))
    });
    let is_wanted = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        *path == *program.to_string_lossy() || name.starts_with("libc.so") || name.starts_with("libc-")
    };
    let found = starts
        .filter(|(path, _)| is_wanted(path))
        .find_map(|(path, start)| Some(start + value(&fs::read(path).ok()?, "environ")?));
    found.ok_or_else(|| io::Error::other("no libc with `environ`"))
}

/// The value of a defined dynamic symbol of an ELF file of 64 bits, little-endian.
fn value(elf: &[u8], wanted: &str) -> Option<u64> {
    let sections = number(elf, 0x28, 8)?;
    let (size, count) = (number(elf, 0x3a, 2)?, number(elf, 0x3c, 2)?);
    let section = |index: u64| sections.wrapping_add(index.wrapping_mul(size));
    let symbols =
        (0..count).map(section).find(|at| number(elf, at.wrapping_add(4), 4) == Some(DYNAMIC_SYMBOLS))?;
    let (offset, length) = (number(elf, symbols + 0x18, 8)?, number(elf, symbols + 0x20, 8)?);
    let names = number(elf, section(number(elf, symbols + 0x28, 4)?) + 0x18, 8)?;
    let count = length.min(elf.len() as u64) / 24;
    (0..count).map(|index| offset.wrapping_add(index * 24)).find_map(|symbol| {
        let start = usize::try_from(names.checked_add(number(elf, symbol, 4)?)?).ok()?;
        let name = elf.get(start..)?.split(|byte| *byte == 0).next()?;
        let is_defined = number(elf, symbol.checked_add(6)?, 2)? != 0;
        (name == wanted.as_bytes() && is_defined).then(|| number(elf, symbol.checked_add(8)?, 8))?
    })
}

/// The type of the section with a file's dynamic symbols.
const DYNAMIC_SYMBOLS: u64 = 11;

fn number(bytes: &[u8], at: u64, length: usize) -> Option<u64> {
    let start = usize::try_from(at).ok()?;
    let bytes = bytes.get(start..start.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    #[test]
    fn the_variables_of_this_process_are_found_in_its_memory() {
        let process = std::process::id();
        let variables = read(process, address(process).unwrap()).unwrap();
        assert_eq!(variables.get("PATH"), std::env::var("PATH").ok().as_ref());
    }

    #[test]
    fn what_is_no_elf_has_no_symbols() {
        for bytes in [&b""[..], b"\x7fELF", &[0xff; 4096]] {
            assert_eq!(value(bytes, "environ"), None);
        }
    }
}
