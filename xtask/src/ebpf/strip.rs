//! Takes what only debuggers read out of a BPF object: nine tenths of it. The loader reads `.BTF` alone.
//!
//! The sections stay in the table, empty, so that no number that refers to one changes.

use anyhow::{Context, Result, ensure};

/// Bytes of the header of a 64-bit ELF file, and of an entry of its table of sections.
const HEADER_BYTES: usize = 64;
const SECTION_BYTES: usize = 64;
/// Where things are in the header.
const TABLE_OFFSET: usize = 0x28;
const SECTION_COUNT: usize = 0x3c;
const NAMES_INDEX: usize = 0x3e;
/// Where things are in an entry.
const KIND: usize = 0x04;
const OFFSET: usize = 0x18;
const SIZE: usize = 0x20;
const ALIGNMENT: usize = 0x30;
/// The kind of a section without contents.
const NO_BITS: u32 = 8;

/// The object with all debug sections empty.
pub(super) fn strip(object: &[u8]) -> Result<Vec<u8>> {
    ensure!(object.starts_with(b"\x7fELF\x02\x01"), "no 64-bit little-endian ELF file");
    let count = usize::from(u16::from_le_bytes(field(object, SECTION_COUNT)?));
    let table = long(object, TABLE_OFFSET)?;
    let mut sections = Vec::with_capacity(count);
    for place in 0..count {
        sections.push(slice(object, table + place * SECTION_BYTES, SECTION_BYTES)?.to_vec());
    }
    let names = usize::from(u16::from_le_bytes(field(object, NAMES_INDEX)?));
    let names = contents(object, sections.get(names).context("no section of names")?)?;

    let mut stripped = slice(object, 0, HEADER_BYTES)?.to_vec();
    for section in &mut sections {
        let kind = u32::from_le_bytes(field(section, KIND)?);
        if kind == 0 || kind == NO_BITS {
            continue;
        }
        let is_debug = is_debug(name(section, names)?);
        let bytes = if is_debug { &[] } else { contents(object, section)? };
        let alignment = long(section, ALIGNMENT)?.max(1);
        stripped.resize(stripped.len().next_multiple_of(alignment), 0);
        section[OFFSET..OFFSET + 8].copy_from_slice(&(stripped.len() as u64).to_le_bytes());
        section[SIZE..SIZE + 8].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        stripped.extend(bytes);
    }
    stripped.resize(stripped.len().next_multiple_of(8), 0);
    let table = stripped.len() as u64;
    stripped[TABLE_OFFSET..TABLE_OFFSET + 8].copy_from_slice(&table.to_le_bytes());
    stripped.extend(sections.concat());
    Ok(stripped)
}

fn is_debug(name: &[u8]) -> bool {
    name.starts_with(b".debug") || name.starts_with(b".rel.debug")
}

fn name<'a>(section: &[u8], names: &'a [u8]) -> Result<&'a [u8]> {
    let start = u32::from_le_bytes(field(section, 0)?) as usize;
    let rest = names.get(start..).context("a name beyond the names")?;
    Ok(rest.split(|byte| *byte == 0).next().unwrap_or_default())
}

fn contents<'a>(object: &'a [u8], section: &[u8]) -> Result<&'a [u8]> {
    slice(object, long(section, OFFSET)?, long(section, SIZE)?)
}

fn slice(bytes: &[u8], start: usize, length: usize) -> Result<&[u8]> {
    start.checked_add(length).and_then(|end| bytes.get(start..end)).context("the file is cut short")
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    slice(bytes, at, N)?.first_chunk().copied().context("the file is cut short")
}

fn long(bytes: &[u8], at: usize) -> Result<usize> {
    usize::try_from(u64::from_le_bytes(field(bytes, at)?)).context("a number too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debug_sections_lose_their_contents() {
        let object = include_bytes!("../../../dataplane-ebpf/object/selvedge.bpf.o");
        let stripped = strip(object).expect("the committed object is an ELF file");
        assert_eq!(stripped, object, "the committed object is stripped already");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(strip(b"").is_err() && strip(b"\x7fELF\x02\x01").is_err());
    }
}
