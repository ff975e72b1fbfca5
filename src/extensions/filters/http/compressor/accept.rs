//! `accept-encoding`: which of the chain's compressors a response is for.

/// A compressor that may be chosen, in the order of the chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// The word of its encoding.
    pub token: &'static str,
    /// `choose_first`: wins among equals.
    pub choose_first: bool,
}

/// What was chosen, and why. The same for all compressors of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// This encoding is wanted.
    Encoding(&'static str),
    /// Any encoding is; this is the first of the chain.
    Wildcard(&'static str),
    /// None is wanted.
    Identity,
    /// Nothing that is wanted can be had.
    NotValid,
}

impl Decision {
    /// The encoding to use.
    pub fn token(self) -> Option<&'static str> {
        match self {
            Self::Encoding(token) | Self::Wildcard(token) => Some(token),
            Self::Identity | Self::NotValid => None,
        }
    }
}

/// Chooses the wanted encoding with the highest weight; of equals the first, or the one that is to be chosen first.
pub(super) fn choose(accept: &str, candidates: &[Candidate]) -> Decision {
    let mut allowed: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if allowed.iter().all(|c| c.token != candidate.token) {
            allowed.push(*candidate);
        }
    }
    let wanted: Vec<_> = accept.split(',').filter_map(weighted).collect();
    for (token, weight) in &wanted {
        if *weight == 0.0 {
            allowed.retain(|c| c.token != *token);
        }
    }
    if wanted.is_empty() || allowed.is_empty() {
        return Decision::NotValid;
    }
    let (mut choice, mut best) = ("identity", 0.0);
    for (token, weight) in wanted {
        let candidate = allowed.iter().find(|c| c.token == token);
        if candidate.is_none() && token != "identity" && token != "*" {
            continue;
        }
        if weight > best || weight == best && candidate.is_some_and(|c| c.choose_first) {
            (choice, best) = (token, weight);
        }
    }
    match choice {
        _ if best == 0.0 => Decision::NotValid,
        "identity" => Decision::Identity,
        "*" => allowed
            .first()
            .map_or(Decision::NotValid, |c| Decision::Wildcard(c.token)),
        token => match allowed.iter().find(|c| c.token == token) {
            Some(candidate) => Decision::Encoding(candidate.token),
            None => Decision::NotValid,
        },
    }
}

/// An encoding and its weight; none for weights that are no numbers.
fn weighted(part: &str) -> Option<(&str, f32)> {
    let (token, parameter) = part.split_once(';').unwrap_or((part, ""));
    let token = token.trim();
    if token.is_empty() {
        return None;
    }
    match parameter.split_once('=') {
        Some((name, weight)) if name.trim().eq_ignore_ascii_case("q") => Some((token, weight.trim().parse().ok()?)),
        _ => Some((token, 1.0)),
    }
}
