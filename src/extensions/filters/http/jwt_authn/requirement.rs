//! `JwtRequirement`: which tokens a request must have, as a tree.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use http::{HeaderName, HeaderValue};
use xds_protos::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtRequirement as Proto, ProviderWithAudiences, jwt_requirement::RequiresType,
};

use super::{
    audience::Audiences,
    extract::{Found, Locations},
    filter::FetchedKeys,
    jwks::Jwks,
    provider::{Keys, Left, Provider},
    remote::Remote,
    status::Status,
    token::Token,
};
use crate::{
    config::{BuildCx, ConfigResult},
    http::RequestHead,
};

/// All providers by name.
pub(super) type Providers = HashMap<String, Arc<Provider>>;

/// How deep requirements may be nested: what the configuration's reader allows anyway.
const MAX_DEPTH: usize = 32;

/// A requirement, built.
#[derive(Debug)]
pub(super) enum Requirement {
    /// Nothing is asked for.
    None,
    /// Tokens of the tree's leaf.
    Tokens(Leaf),
    /// One of them.
    Any(Vec<Requirement>),
    /// All of them.
    All(Vec<Requirement>),
}

/// A requirement on the tokens of some providers.
#[derive(Debug)]
pub(super) struct Leaf {
    providers: Vec<Arc<Provider>>,
    /// The provider is given; otherwise it is found by the token's issuer.
    by_name: bool,
    audiences: Option<Audiences>,
    locations: Locations,
    lenience: Lenience,
}

/// What a leaf lets pass.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lenience {
    Strict,
    Missing,
    MissingOrFailed,
    /// All, and this header says it when a token was not good.
    Unverified(HeaderName),
}

/// Why a requirement is not met.
#[derive(Debug)]
pub(super) enum Unmet {
    /// The tokens are not good.
    Status(Status),
    /// These keys are needed first.
    Fetch(Arc<Remote>),
}

impl From<Status> for Unmet {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// A request under examination.
pub(super) struct Exam<'a> {
    pub head: &'a mut RequestHead,
    pub left: Left,
    /// Seconds of Unix time.
    pub now: u64,
    pub cache: CacheUse,
    /// All keys there are: fresh ones, and what was fetched for this very request.
    pub keys: &'a FetchedKeys,
}

/// How often tokens of a given provider were found in its cache (`jwt_cache_hit`), or not.
#[derive(Debug, Default)]
pub(super) struct CacheUse {
    pub hits: u64,
    pub misses: u64,
}

impl Requirement {
    pub fn build(proto: Proto, providers: &Providers, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Self::nested(proto, providers, MAX_DEPTH, cx)
    }

    fn nested(proto: Proto, providers: &Providers, depth: usize, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { requires_type } });
        let Some(depth) = depth.checked_sub(1) else {
            return Err(cx.error("requirements are nested too deeply"));
        };
        let all = || providers.values().cloned().collect::<Vec<_>>();
        Ok(match requires_type {
            None => Self::None,
            Some(RequiresType::ProviderName(name)) => {
                Self::Tokens(Leaf::named(find(&name, providers, cx)?, None, Lenience::Strict))
            }
            Some(RequiresType::ProviderAndAudiences(ProviderWithAudiences {
                provider_name,
                audiences,
            })) => {
                let audiences = (!audiences.is_empty()).then(|| Audiences::new(audiences));
                let provider = find(&provider_name, providers, cx)?;
                Self::Tokens(Leaf::named(provider, audiences, Lenience::Strict))
            }
            Some(RequiresType::RequiresAny(list)) => Self::any(list.requirements, providers, depth, cx)?,
            Some(RequiresType::RequiresAll(list)) => {
                at_least_two(&list.requirements, "requires_all.requirements", cx)?;
                let nested = |proto, cx: &mut BuildCx<'_>| Self::nested(proto, providers, depth, cx);
                Self::All(cx.each("requires_all.requirements", list.requirements, nested)?)
            }
            Some(RequiresType::AllowMissingOrFailed(_)) => Self::Tokens(Leaf::of(all(), Lenience::MissingOrFailed)),
            Some(RequiresType::AllowMissing(_)) => Self::Tokens(Leaf::of(all(), Lenience::Missing)),
            Some(RequiresType::ExtractOnlyWithoutValidation(extract)) => {
                let name = match extract.verification_status_header.as_str() {
                    "" => "x-jwt-signature-verified",
                    name => name,
                };
                let header = HeaderName::try_from(name)
                    .map_err(|_| cx.error_at("verification_status_header", "not a valid header name"))?;
                Self::Tokens(Leaf::of(all(), Lenience::Unverified(header)))
            }
        })
    }

    /// Those that let something pass come last, as one, and look at the tokens of the others' providers.
    fn any(list: Vec<Proto>, providers: &Providers, depth: usize, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        at_least_two(&list, "requires_any.requirements", cx)?;
        let mut used = Vec::new();
        let mut lenience = None;
        let mut strict = Vec::new();
        for proto in list {
            match &proto.requires_type {
                Some(RequiresType::AllowMissingOrFailed(_)) => {
                    lenience = Some(Lenience::MissingOrFailed);
                    continue;
                }
                Some(RequiresType::AllowMissing(_)) => {
                    lenience.get_or_insert(Lenience::Missing);
                    continue;
                }
                Some(RequiresType::ProviderName(name)) => used.extend(providers.get(name).cloned()),
                Some(RequiresType::ProviderAndAudiences(with)) => {
                    used.extend(providers.get(&with.provider_name).cloned());
                }
                _ => {}
            }
            strict.push(proto);
        }
        let nested = |proto, cx: &mut BuildCx<'_>| Self::nested(proto, providers, depth, cx);
        let mut all = cx.each("requires_any.requirements", strict, nested)?;
        if let Some(lenience) = lenience {
            all.push(Self::Tokens(Leaf::of(used, lenience)));
        }
        Ok(Self::Any(all))
    }

    /// Whether a request meets it. What accepted tokens say goes into the request on the way.
    pub fn verify(&self, exam: &mut Exam<'_>) -> Result<(), Unmet> {
        match self {
            Self::None => Ok(()),
            Self::Tokens(leaf) => leaf.verify(exam),
            Self::All(all) => all.iter().try_for_each(|one| one.verify(exam)),
            Self::Any(all) => {
                let mut last = Unmet::Status(Status::Missing);
                for one in all {
                    match one.verify(exam) {
                        Ok(()) => return Ok(()),
                        // Keys are fetched only when no other token will do.
                        Err(Unmet::Status(_)) if matches!(last, Unmet::Fetch(_)) => {}
                        Err(unmet) => last = unmet,
                    }
                }
                Err(last)
            }
        }
    }
}

fn at_least_two(list: &[Proto], field: &str, cx: &BuildCx<'_>) -> ConfigResult<()> {
    match list.len() {
        0 | 1 => Err(cx.error_at(field, "value must contain at least 2 item(s)")),
        _ => Ok(()),
    }
}

fn find(name: &str, providers: &Providers, cx: &BuildCx<'_>) -> ConfigResult<Arc<Provider>> {
    let missing = || cx.error(format!("Required provider ['{name}'] is not configured."));
    providers.get(name).cloned().ok_or_else(missing)
}

impl Leaf {
    fn named(provider: Arc<Provider>, audiences: Option<Audiences>, lenience: Lenience) -> Self {
        Self {
            by_name: true,
            audiences,
            ..Self::of(vec![provider], lenience)
        }
    }

    fn of(providers: Vec<Arc<Provider>>, lenience: Lenience) -> Self {
        Self {
            locations: Locations::of(providers.iter().map(|p| &**p)),
            providers,
            by_name: false,
            audiences: None,
            lenience,
        }
    }

    /// All tokens must be good: what stands behind might take a bad one for the one that was checked.
    fn verify(&self, exam: &mut Exam<'_>) -> Result<(), Unmet> {
        for provider in &self.providers {
            provider.sanitize(exam.head);
        }
        let tokens = self.locations.extract(exam.head);
        if tokens.is_empty() {
            return match self.lenience {
                Lenience::Strict => Err(Status::Missing.into()),
                _ => Ok(()),
            };
        }
        let mut outcome = Ok(());
        for found in tokens.into_iter().rev() {
            outcome = match self.verify_one(&found, exam) {
                Err(Unmet::Status(status)) => Err(status),
                Err(fetch) => return Err(fetch),
                Ok(()) => Ok(()),
            };
            match (&outcome, &self.lenience) {
                (Err(_), Lenience::Strict) => break,
                (Err(_), Lenience::Unverified(header)) => {
                    exam.head.headers.insert(header, HeaderValue::from_static("false"));
                }
                _ => {}
            }
        }
        match (outcome, &self.lenience) {
            (Err(status), Lenience::Strict | Lenience::Missing) => Err(status.into()),
            _ => Ok(()),
        }
    }

    fn verify_one(&self, found: &Found<'_>, exam: &mut Exam<'_>) -> Result<(), Unmet> {
        let named = self.providers.first().filter(|_| self.by_name);
        let cached = named.and_then(|p| p.cache.find(&found.text));
        if let Some(provider) = named {
            let hit = provider.cache.configured && cached.is_some();
            exam.cache.hits += u64::from(hit);
            exam.cache.misses += u64::from(!hit);
        }
        let (token, good_for) = match cached {
            Some((token, keys)) => (Ok(token), Some(keys)),
            None => (Token::parse(&found.text).map(Rc::new), None),
        };
        let mut provider = named;
        let checked = token.map_err(Unmet::from).and_then(|token| {
            if !found.allows(&token.iss) {
                return Err(Status::UnknownIssuer.into());
            }
            provider = named.or_else(|| self.of_issuer(&token.iss));
            let provider = provider.ok_or(Status::UnknownIssuer)?;
            provider.check(&token, self.audiences.as_ref(), exam.now)?;
            let keys = keys_of(provider, exam.keys)?;
            if good_for != Some(keys.id) {
                keys.verify(&token)?;
                provider.cache.keep(&found.text, &token, keys);
            }
            Ok(token)
        });
        match (checked, provider) {
            (Ok(token), Some(provider)) => {
                provider.accept(&token, found.location, exam.head, &mut exam.left);
                Ok(())
            }
            (Err(Unmet::Status(status)), Some(provider)) => {
                provider.refused(status, &mut exam.left);
                Err(status.into())
            }
            (checked, _) => checked.map(|_| ()),
        }
    }

    /// The provider of this issuer, or else one of any issuer.
    fn of_issuer(&self, issuer: &str) -> Option<&Arc<Provider>> {
        let of = |issuer: &str| self.providers.iter().find(|p| p.issuer == issuer);
        of(issuer).or_else(|| of(""))
    }
}

fn keys_of<'k>(provider: &'k Provider, keys: &'k FetchedKeys) -> Result<&'k Jwks, Unmet> {
    let remote = match &provider.keys {
        Keys::Local(keys) => return Ok(keys),
        Keys::Remote(remote) => remote,
    };
    match keys.iter().find(|(of, _)| Arc::ptr_eq(of, remote)) {
        Some((_, Some(fetched))) => Ok(fetched.keys.as_ref().map_err(|status| *status)?),
        Some((_, None)) => Err(Status::FetchFail.into()),
        None => Err(Unmet::Fetch(remote.clone())),
    }
}
