//! Floating-point numbers as Envoy's formats print them; each of the three prints its own way.

/// Shortest text that reads back as the same number; exponents from 1e16 and below 1e-4 (text format).
pub(super) fn shortest(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    let (mantissa, exponent) = scientific(value);
    if (-4..16).contains(&exponent) {
        format!("{value}")
    } else {
        exponential(&mantissa, exponent)
    }
}

/// Shortest text, with an exponent where that is shorter (JSON). NaN is `null`.
pub(super) fn json(value: f64) -> String {
    if !value.is_finite() {
        return "null".into();
    }
    let fixed = format!("{value}");
    let (mantissa, exponent) = scientific(value);
    let exponential = exponential(&mantissa, exponent);
    if exponential.len() < fixed.len() {
        exponential
    } else {
        fixed
    }
}

/// C's `%.<digits>g`: that many significant digits, without trailing zeros.
pub fn general(value: f64, digits: usize) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value < 0.0 { "-inf".into() } else { "inf".into() };
    }
    // Rounding to the digits may carry into the next power of ten, so the exponent is taken afterwards.
    let rounded = format!("{value:.*e}", digits.max(1) - 1);
    let exponent: i32 = rounded
        .split_once('e')
        .and_then(|(_, exponent)| exponent.parse().ok())
        .unwrap_or(0);
    if exponent < -4 || exponent >= digits as i32 {
        let mantissa = rounded.split_once('e').map_or("", |(mantissa, _)| mantissa);
        return exponential(without_zeros(mantissa), exponent);
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    without_zeros(&format!("{value:.decimals$}")).to_owned()
}

fn scientific(value: f64) -> (String, i32) {
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => (mantissa.to_owned(), exponent.parse().unwrap_or(0)),
        None => (text, 0),
    }
}

fn exponential(mantissa: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

fn without_zeros(number: &str) -> &str {
    if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    }
}
