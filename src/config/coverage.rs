//! The three-way sorting of proto fields.

/// Whether a proto field differs from its default, which is what "the user wrote it" means in proto3.
pub fn is_set<T: Default + PartialEq>(field: &T) -> bool {
    *field != T::default()
}

/// Destructures a proto message exhaustively and sorts every field into one of three states.
///
/// ```ignore
/// coverage!(cx, proto => Percent {
///     supported { value }
///     ignored { note: "documentation only" }
///     rejected { exotic: "rustls has no such mode" }
/// });
/// ```
///
/// *supported* fields become local variables. *ignored* fields that are set are warned about once per
/// resource and counted. *rejected* fields that are set return a [`ConfigError`](crate::config::ConfigError)
/// from the enclosing function. There is no `..`: a newer proto is a compile error until someone decides.
/// `docs/coverage.md` is generated from these lists.
#[macro_export]
macro_rules! coverage {
    ($cx:expr, $proto:expr => $($ty:ident)::+ {
        supported { $($s:ident),* $(,)? }
        $(ignored { $($i:ident : $iw:literal),* $(,)? })?
        $(rejected { $($r:ident : $rw:literal),* $(,)? })?
    }) => {
        let _ = &$cx;
        let $($ty)::+ { $($s,)* $($($i,)*)? $($($r,)*)? } = $proto;
        $($(
            if $crate::config::is_set(&$i) {
                $cx.ignored(stringify!($i), $iw);
            }
        )*)?
        $($(
            if $crate::config::is_set(&$r) {
                return Err($cx.error_at(stringify!($r), concat!("not supported: ", $rw)));
            }
        )*)?
    };
}
