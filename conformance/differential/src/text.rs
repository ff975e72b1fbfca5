//! Bytes and the text that stands for them in cases and outcomes.

/// One byte per character below U+0100 (so `"\xff"` in YAML is one byte); others as UTF-8.
pub fn to_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match u8::try_from(u32::from(c)) {
            Ok(b) => bytes.push(b),
            Err(_) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Bytes for people: as they are when printable, otherwise escaped; above 4 KB only their length
/// and a checksum.
pub fn show(bytes: &[u8]) -> String {
    if bytes.len() > 4096 {
        return format!("{} bytes, checksum {:016x}", bytes.len(), checksum(bytes));
    }
    show_all(bytes)
}

/// As [`show`], however long.
pub fn show_all(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(s) if s.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')) => s.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// FNV-1a: equal bytes, equal number.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The bytes of a hexadecimal string; blanks are skipped, anything else ends it.
pub fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map_while(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
