//! Date formats: `strftime` as the C library has it, with Abseil's additions (`%E3S`, `%Ez`) and Envoy's own (`%3f`,
//! `%s`).

use std::{io::Write, time::SystemTime};

use ::time::{OffsetDateTime, UtcOffset};

/// A compiled date format.
#[derive(Debug, Clone)]
pub(super) struct TimeFormat {
    pieces: Vec<Piece>,
    local: bool,
}

#[derive(Debug, Clone)]
enum Piece {
    Literal(Box<str>),
    /// `strftime` conversion.
    Conversion(Conversion),
    /// So many digits of the fraction of a second; none: as many as are not zero.
    Fraction(Option<usize>),
    /// Seconds with so many digits of fraction; none: as many as are not zero.
    Seconds(Option<usize>),
    /// Seconds since the epoch.
    Epoch,
    /// The offset with colons, with seconds if so.
    Offset {
        seconds: bool,
    },
}

/// A conversion with the flag and the width of the C library.
#[derive(Debug, Clone, Copy)]
struct Conversion {
    letter: u8,
    /// `-`, `_` or `0`; the last one counts.
    pad: Option<u8>,
    upper: bool,
    swap: bool,
    width: usize,
}

/// `2016-04-15T20:17:00.310Z`
const DEFAULT: &str = "%Y-%m-%dT%H:%M:%E3SZ";
/// The same with an offset.
const DEFAULT_LOCAL: &str = "%Y-%m-%dT%H:%M:%E3S%z";

/// What the C library converts.
const LETTERS: &[u8] = b"aAbBcCdDeFgGhHIjklmMpPrRStTuUVwWxXyYzZ%";

/// The digits of a fraction that Abseil goes on to write, although the clock knows fewer.
const MOST_DIGITS: usize = 15;

impl TimeFormat {
    pub(super) fn parse(format: &str, local: bool) -> Result<Self, String> {
        if has_newline(format) {
            return Err("Invalid header configuration. Format string contains newline.".to_owned());
        }
        let format = match (format, local) {
            ("", false) => DEFAULT,
            ("", true) => DEFAULT_LOCAL,
            (format, _) => format,
        };
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            literal.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            match Piece::read(after) {
                Some((piece, next)) => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
                    }
                    pieces.push(piece);
                    rest = next;
                }
                None => {
                    literal.push('%');
                    rest = after;
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        Ok(Self { pieces, local })
    }

    pub(super) fn write(&self, moment: SystemTime, out: &mut Vec<u8>) {
        let mut date = OffsetDateTime::from(moment);
        // Envoy's clock counts microseconds.
        let micros = date.microsecond() * 1_000;
        date = date.replace_nanosecond(micros).unwrap_or(date);
        if self.local
            && let Ok(offset) = UtcOffset::local_offset_at(date)
        {
            date = date.to_offset(offset);
        }
        for piece in &self.pieces {
            piece.write(&date, out);
        }
    }
}

/// `%n`, also with what may stand between.
fn has_newline(format: &str) -> bool {
    format.split('%').skip(1).any(|after| {
        let after = after.trim_start_matches(['-', '_', '0', '^', '#']);
        let after = after.trim_start_matches(|c: char| ('1'..='9').contains(&c));
        after.strip_prefix(['E', 'O']).unwrap_or(after).starts_with('n')
    })
}

impl Piece {
    /// Reads what follows a percent sign, and says where it ends; none when it is no conversion.
    fn read(text: &str) -> Option<(Self, &str)> {
        let (digits, after) = match text.as_bytes() {
            [d @ b'1'..=b'9', ..] => (Some(usize::from(d - b'0')), &text[1..]),
            _ => (None, text),
        };
        if let Some(rest) = after.strip_prefix('f') {
            return Some((Self::Fraction(Some(digits.unwrap_or(9))), rest));
        }
        if let Some(rest) = after.strip_prefix('s') {
            return Some((Self::Epoch, rest));
        }
        for (colons, seconds) in [("::z", true), (":z", false)] {
            if let Some(rest) = text.strip_prefix(colons) {
                return Some((Self::Offset { seconds }, rest));
            }
        }
        if let Some(extended) = text.strip_prefix('E')
            && let Some(read) = Self::read_extended(extended)
        {
            return Some(read);
        }
        Conversion::read(text).map(|(c, rest)| (Self::Conversion(c), rest))
    }

    /// Abseil's `%E..`: `%E3S`, `%E*S`, `%E3f`, `%E*f`, `%E4Y`, `%Ez`, `%E*z`, `%ET`.
    fn read_extended(text: &str) -> Option<(Self, &str)> {
        for (name, piece) in [
            ("T", Self::Literal("T".into())),
            ("z", Self::Offset { seconds: false }),
            ("*z", Self::Offset { seconds: true }),
            ("*S", Self::Seconds(None)),
            ("*f", Self::Fraction(None)),
        ] {
            if let Some(rest) = text.strip_prefix(name) {
                return Some((piece, rest));
            }
        }
        let end = text.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0)?;
        let digits = text[..end].parse::<usize>().ok()?.min(MOST_DIGITS);
        match text.as_bytes().get(end)? {
            b'S' => Some((Self::Seconds(Some(digits)), &text[end + 1..])),
            b'f' => Some((Self::Fraction(Some(digits)), &text[end + 1..])),
            b'Y' if &text[..end] == "4" => {
                let year = Conversion {
                    width: 4,
                    ..Conversion::new(b'Y')
                };
                Some((Self::Conversion(year), &text[end + 1..]))
            }
            _ => None,
        }
    }

    fn write(&self, date: &OffsetDateTime, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = match self {
            Self::Literal(text) => out.write_all(text.as_bytes()),
            Self::Conversion(conversion) => return conversion.write(date, out),
            Self::Fraction(digits) => return fraction(date, *digits, out),
            Self::Epoch => write!(out, "{}", date.unix_timestamp()),
            Self::Seconds(digits) => {
                let written = write!(out, "{:02}", date.second());
                if *digits != Some(0) && (digits.is_some() || date.nanosecond() > 0) {
                    out.push(b'.');
                    fraction(date, *digits, out);
                }
                written
            }
            Self::Offset { seconds } => {
                let (hours, minutes, rest) = date.offset().as_hms();
                let sign = if date.offset().is_negative() { '-' } else { '+' };
                let written = write!(out, "{sign}{:02}:{:02}", hours.abs(), minutes.abs());
                if *seconds {
                    let _ = write!(out, ":{:02}", rest.abs());
                }
                written
            }
        };
    }
}

fn fraction(date: &OffsetDateTime, digits: Option<usize>, out: &mut Vec<u8>) {
    let text = format!("{:0<15}", format!("{:09}", date.nanosecond()));
    let text = match digits {
        Some(digits) => text.get(..digits).unwrap_or(&text),
        None => match text.trim_end_matches('0') {
            "" => "0",
            text => text,
        },
    };
    out.extend_from_slice(text.as_bytes());
}

impl Conversion {
    fn new(letter: u8) -> Self {
        Self {
            letter,
            pad: None,
            upper: false,
            swap: false,
            width: 0,
        }
    }

    /// Flags, width, `E` or `O`, and a letter that is known.
    fn read(text: &str) -> Option<(Self, &str)> {
        let mut conversion = Self::new(b'%');
        let flags = text.find(|c| !"-_0^#+".contains(c)).unwrap_or(text.len());
        for flag in text[..flags].bytes() {
            match flag {
                b'^' => conversion.upper = true,
                b'#' => conversion.swap = true,
                pad => conversion.pad = Some(pad),
            }
        }
        let text = &text[flags..];
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        // A width that no line has is none.
        conversion.width = text[..digits].parse().unwrap_or(0).min(1024);
        let text = &text[digits..];
        let (text, allowed): (&str, &[u8]) = match text.as_bytes().first()? {
            b'E' => (&text[1..], b"cCxXyY"),
            b'O' => (&text[1..], b"BbdeHhIklmMSuUVwWy"),
            _ => (text, LETTERS),
        };
        let letter = *text.as_bytes().first()?;
        conversion.letter = letter;
        allowed.contains(&letter).then(|| (conversion, &text[1..]))
    }

    fn write(self, date: &OffsetDateTime, out: &mut Vec<u8>) {
        let monday = u16::from(date.weekday().number_days_from_monday());
        let sunday = u16::from(date.weekday().number_days_from_sunday());
        let hour12 = match date.hour() % 12 {
            0 => 12,
            h => h,
        };
        let mut number = |n: i64, digits: usize, pad: u8| self.number(n, digits, pad, out);
        match self.letter {
            b'Y' => number(date.year().into(), 1, b'0'),
            b'G' => number(date.to_iso_week_date().0.into(), 1, b'0'),
            b'y' => number(date.year().rem_euclid(100).into(), 2, b'0'),
            b'g' => number(date.to_iso_week_date().0.rem_euclid(100).into(), 2, b'0'),
            b'C' => number(date.year().div_euclid(100).into(), 2, b'0'),
            b'V' => number(date.iso_week().into(), 2, b'0'),
            b'U' => number(((date.ordinal() + 6 - sunday) / 7).into(), 2, b'0'),
            b'W' => number(((date.ordinal() + 6 - monday) / 7).into(), 2, b'0'),
            b'm' => number(u8::from(date.month()).into(), 2, b'0'),
            b'd' => number(date.day().into(), 2, b'0'),
            b'e' => number(date.day().into(), 2, b' '),
            b'H' => number(date.hour().into(), 2, b'0'),
            b'k' => number(date.hour().into(), 2, b' '),
            b'I' => number(hour12.into(), 2, b'0'),
            b'l' => number(hour12.into(), 2, b' '),
            b'M' => number(date.minute().into(), 2, b'0'),
            b'S' => number(date.second().into(), 2, b'0'),
            b'j' => number(date.ordinal().into(), 3, b'0'),
            b'u' => number((monday + 1).into(), 1, b'0'),
            b'w' => number(sunday.into(), 1, b'0'),
            letter => {
                let text = text(letter, date);
                self.text(&text, out);
            }
        }
    }

    fn number(self, n: i64, digits: usize, pad: u8, out: &mut Vec<u8>) {
        let pad = match self.pad {
            Some(b'_') => b' ',
            Some(b'0' | b'+') => b'0',
            _ => pad,
        };
        let text = n.to_string();
        let width = if self.pad == Some(b'-') {
            0
        } else {
            digits.max(self.width)
        };
        out.extend(std::iter::repeat_n(pad, width.saturating_sub(text.len())));
        out.extend_from_slice(text.as_bytes());
    }

    fn text(self, text: &str, out: &mut Vec<u8>) {
        let text = match self.letter {
            b'p' | b'Z' if self.swap => text.to_ascii_lowercase(),
            _ if self.swap || self.upper => text.to_ascii_uppercase(),
            _ => text.to_owned(),
        };
        let pad = if self.pad == Some(b'0') { b'0' } else { b' ' };
        let width = if self.pad == Some(b'-') { 0 } else { self.width };
        out.extend(std::iter::repeat_n(pad, width.saturating_sub(text.len())));
        out.extend_from_slice(text.as_bytes());
    }
}

/// What is not one number.
fn text(letter: u8, date: &OffsetDateTime) -> String {
    let short = |name: String| name.get(..3).unwrap_or_default().to_owned();
    let all = |parts: &[u8]| {
        let mut out = Vec::new();
        for part in parts {
            match part {
                b'/' | b':' | b'-' | b' ' => out.push(*part),
                letter => Conversion::new(*letter).write(date, &mut out),
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    let morning = date.hour() < 12;
    match letter {
        b'a' => short(date.weekday().to_string()),
        b'A' => date.weekday().to_string(),
        b'b' | b'h' => short(date.month().to_string()),
        b'B' => date.month().to_string(),
        b'p' => if morning { "AM" } else { "PM" }.to_owned(),
        b'P' => if morning { "am" } else { "pm" }.to_owned(),
        b'z' => {
            let (hours, minutes, _) = date.offset().as_hms();
            let sign = if date.offset().is_negative() { '-' } else { '+' };
            format!("{sign}{:02}{:02}", hours.abs(), minutes.abs())
        }
        b'Z' => "UTC".to_owned(),
        b't' => "\t".to_owned(),
        b'T' | b'X' => all(b"H:M:S"),
        b'R' => all(b"H:M"),
        b'F' => all(b"Y-m-d"),
        b'D' | b'x' => all(b"m/d/y"),
        b'r' => all(b"I:M:S p"),
        b'c' => all(b"a b e T Y"),
        _ => "%".to_owned(),
    }
}
