//! Moments: `%START_TIME(format)%` and its kin, and the points of `%COMMON_DURATION(..)%`.

use std::{
    io::Write,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ::time::{OffsetDateTime, UtcOffset};

use crate::http::StreamInfo;

/// Which moment is printed.
#[derive(Debug, Clone, Copy)]
pub(super) enum TimeSource {
    Start,
    Now,
    DownstreamCertStart,
    DownstreamCertEnd,
    UpstreamCertStart,
    UpstreamCertEnd,
}

impl TimeSource {
    pub(super) fn get(self, info: &StreamInfo) -> Option<SystemTime> {
        let downstream = || {
            info.connection
                .tls
                .as_ref()
                .filter(|t| t.peer_presented)
                .map(|t| &t.peer)
        };
        let upstream = || info.upstream.tls.as_ref().filter(|t| t.peer_presented).map(|t| &t.peer);
        match self {
            Self::Start => Some(info.start_time),
            Self::Now => Some(SystemTime::now()),
            Self::DownstreamCertStart => epoch(downstream()?.not_before),
            Self::DownstreamCertEnd => epoch(downstream()?.not_after),
            Self::UpstreamCertStart => epoch(upstream()?.not_before),
            Self::UpstreamCertEnd => epoch(upstream()?.not_after),
        }
    }
}

fn epoch(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// A point in a stream's life, by Envoy's names.
#[derive(Debug, Clone, Copy)]
pub(super) enum TimePoint {
    DownstreamRxBegin,
    DownstreamRxEnd,
    UpstreamTxBegin,
    UpstreamTxEnd,
    UpstreamRxBegin,
    UpstreamRxEnd,
    DownstreamTxBegin,
    DownstreamTxEnd,
    /// A point that is not noted down, or a name only filters set.
    Unknown,
}

impl TimePoint {
    pub(super) fn parse(name: &str) -> Self {
        match name {
            "DS_RX_BEG" => Self::DownstreamRxBegin,
            "DS_RX_END" => Self::DownstreamRxEnd,
            "US_TX_BEG" => Self::UpstreamTxBegin,
            "US_TX_END" => Self::UpstreamTxEnd,
            "US_RX_BEG" => Self::UpstreamRxBegin,
            "US_RX_END" => Self::UpstreamRxEnd,
            "DS_TX_BEG" => Self::DownstreamTxBegin,
            "DS_TX_END" => Self::DownstreamTxEnd,
            _ => Self::Unknown,
        }
    }

    pub(super) fn get(self, info: &StreamInfo) -> Option<Instant> {
        let progress = &info.progress;
        match self {
            Self::DownstreamRxBegin => Some(info.start),
            Self::DownstreamRxEnd => progress.last_downstream_rx.get(),
            Self::UpstreamTxBegin => progress.first_upstream_tx.get(),
            Self::UpstreamTxEnd => progress.last_upstream_tx.get(),
            Self::UpstreamRxBegin => progress.first_upstream_rx.get(),
            Self::UpstreamRxEnd => progress.last_upstream_rx.get(),
            Self::DownstreamTxBegin => progress.first_downstream_tx.get(),
            Self::DownstreamTxEnd => progress.last_downstream_tx.get(),
            Self::Unknown => None,
        }
    }
}

/// A compiled date format: `strftime` with Envoy's and Abseil's additions (`%3f`, `%s`, `%E3S`).
#[derive(Debug, Clone)]
pub(super) struct TimeFormat {
    pieces: Vec<Piece>,
    local: bool,
}

#[derive(Debug, Clone)]
enum Piece {
    Literal(Box<str>),
    /// `strftime` conversion.
    Conversion(char),
    /// So many digits of the fraction of a second.
    Fraction(usize),
    /// Seconds with so many digits of fraction; none: as many as are not zero.
    Seconds(Option<usize>),
    /// Seconds since the epoch.
    Epoch,
}

/// `2016-04-15T20:17:00.310Z`
const DEFAULT: &str = "%Y-%m-%dT%H:%M:%E3SZ";
/// The same with an offset.
const DEFAULT_LOCAL: &str = "%Y-%m-%dT%H:%M:%E3S%z";

impl TimeFormat {
    pub(super) fn parse(format: &str, local: bool) -> Result<Self, String> {
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
            let (piece, after) = Piece::read(&rest[at + 1..]);
            match piece {
                Some(Piece::Conversion('n')) => {
                    return Err("Invalid header configuration. Format string contains newline.".to_owned());
                }
                Some(piece) => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
                    }
                    pieces.push(piece);
                }
                None => literal.push('%'),
            }
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        Ok(Self { pieces, local })
    }

    pub(super) fn write(&self, moment: SystemTime, out: &mut Vec<u8>) {
        let mut date = OffsetDateTime::from(moment);
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

impl Piece {
    /// Reads what follows a percent sign; none when it is no conversion.
    fn read(text: &str) -> (Option<Self>, &str) {
        let mut chars = text.chars();
        let Some(first) = chars.next() else {
            return (None, text);
        };
        let after_first = chars.as_str();
        if let Some(digits) = first.to_digit(10).filter(|d| *d > 0) {
            let digits = digits as usize;
            return match after_first.chars().next() {
                Some('f') => (Some(Self::Fraction(digits)), &after_first[1..]),
                Some('s') => (Some(Self::Epoch), &after_first[1..]),
                _ => (None, text),
            };
        }
        match first {
            'f' => (Some(Self::Fraction(9)), after_first),
            's' => (Some(Self::Epoch), after_first),
            'E' => Self::read_extended(after_first),
            'O' => match after_first.chars().next() {
                Some(c) => (Some(Self::Conversion(c)), &after_first[c.len_utf8()..]),
                None => (None, text),
            },
            c => (Some(Self::Conversion(c)), after_first),
        }
    }

    /// Abseil's `%E..`: `%E3S`, `%E*S`, `%E3f`, `%E*f`, `%E4Y`, `%Ez`, `%ET`.
    fn read_extended(text: &str) -> (Option<Self>, &str) {
        let digits_len = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let digits = text[..digits_len].parse::<usize>().ok().map(|d| d.min(9));
        let (star, rest) = match text[digits_len..].strip_prefix('*') {
            Some(rest) if digits_len == 0 => (true, rest),
            _ => (false, &text[digits_len..]),
        };
        let Some(conversion) = rest.chars().next() else {
            return (None, text);
        };
        let after = &rest[conversion.len_utf8()..];
        let piece = match conversion {
            'S' if star => Self::Seconds(None),
            'S' => Self::Seconds(Some(digits.unwrap_or(0))),
            'f' if star => Self::Fraction(9),
            'f' => Self::Fraction(digits.unwrap_or(0)),
            'T' => Self::Literal("T".into()),
            c => Self::Conversion(c),
        };
        (Some(piece), after)
    }

    fn write(&self, date: &OffsetDateTime, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = match self {
            Self::Literal(text) => out.write_all(text.as_bytes()),
            Self::Conversion(c) => return convert(*c, date, out),
            Self::Fraction(digits) => return fraction(date, *digits, out),
            Self::Epoch => write!(out, "{}", date.unix_timestamp()),
            Self::Seconds(digits) => {
                let written = write!(out, "{:02}", date.second());
                match digits {
                    Some(0) => {}
                    Some(digits) => {
                        out.push(b'.');
                        fraction(date, *digits, out);
                    }
                    None if date.nanosecond() == 0 => {}
                    None => {
                        let text = format!("{:09}", date.nanosecond());
                        out.push(b'.');
                        out.extend_from_slice(text.trim_end_matches('0').as_bytes());
                    }
                }
                written
            }
        };
    }
}

fn fraction(date: &OffsetDateTime, digits: usize, out: &mut Vec<u8>) {
    let mut divisor = 100_000_000;
    for _ in 0..digits.min(9) {
        out.push(b'0' + (date.nanosecond() / divisor % 10) as u8);
        divisor = (divisor / 10).max(1);
    }
}

fn convert(conversion: char, date: &OffsetDateTime, out: &mut Vec<u8>) {
    let hour12 = match date.hour() % 12 {
        0 => 12,
        h => h,
    };
    let monday = u16::from(date.weekday().number_days_from_monday());
    let sunday = u16::from(date.weekday().number_days_from_sunday());
    let (hours, minutes, _) = date.offset().as_hms();
    let sign = if date.offset().is_negative() { '-' } else { '+' };
    let month = date.month().to_string();
    let weekday = date.weekday().to_string();
    let short = |name: &str| name.get(..3).unwrap_or_default().to_owned();
    let all = |parts: &str, out: &mut Vec<u8>| {
        parts.chars().for_each(|c| match c {
            '/' | ':' | '-' | ' ' => out.push(c as u8),
            c => convert(c, date, out),
        })
    };
    // Writing to a Vec cannot fail.
    let _ = match conversion {
        'Y' => write!(out, "{}", date.year()),
        'y' => write!(out, "{:02}", date.year().rem_euclid(100)),
        'C' => write!(out, "{:02}", date.year().div_euclid(100)),
        'G' => write!(out, "{}", date.to_iso_week_date().0),
        'V' => write!(out, "{:02}", date.iso_week()),
        'U' => write!(out, "{:02}", (date.ordinal() + 6 - sunday) / 7),
        'W' => write!(out, "{:02}", (date.ordinal() + 6 - monday) / 7),
        'm' => write!(out, "{:02}", u8::from(date.month())),
        'd' => write!(out, "{:02}", date.day()),
        'e' => write!(out, "{:2}", date.day()),
        'H' => write!(out, "{:02}", date.hour()),
        'k' => write!(out, "{:2}", date.hour()),
        'I' => write!(out, "{hour12:02}"),
        'l' => write!(out, "{hour12:2}"),
        'M' => write!(out, "{:02}", date.minute()),
        'S' => write!(out, "{:02}", date.second()),
        'j' => write!(out, "{:03}", date.ordinal()),
        'p' => write!(out, "{}", if date.hour() < 12 { "AM" } else { "PM" }),
        'a' => write!(out, "{}", short(&weekday)),
        'A' => write!(out, "{weekday}"),
        'b' | 'h' => write!(out, "{}", short(&month)),
        'B' => write!(out, "{month}"),
        'u' => write!(out, "{}", monday + 1),
        'w' => write!(out, "{sunday}"),
        'z' => write!(out, "{sign}{:02}{:02}", hours.abs(), minutes.abs()),
        'Z' => write!(out, "UTC"),
        't' => write!(out, "\t"),
        '%' => write!(out, "%"),
        'T' => return all("H:M:S", out),
        'R' => return all("H:M", out),
        'F' => return all("Y-m-d", out),
        'D' | 'x' => return all("m/d/y", out),
        'X' => return all("H:M:S", out),
        'r' => return all("I:M:S p", out),
        'c' => return all("a b e T Y", out),
        other => write!(out, "%{other}"),
    };
}
