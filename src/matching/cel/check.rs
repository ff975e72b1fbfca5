//! What Envoy evaluates of CEL, and what it refuses when it is configured.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators},
};
use xds_protos::envoy::config::core::v3::CelExpressionConfig;

use crate::config::{BuildCx, ConfigResult};

/// Parts of CEL that have to be turned on (`CelExpressionConfig`): they make texts of any length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CelOptions {
    /// `string()`
    pub string_conversion: bool,
    /// `+` of strings.
    pub string_concat: bool,
    /// `replace()`, `split()`, `lowerAscii()`, `upperAscii()`.
    pub string_functions: bool,
}

impl CelOptions {
    /// Reads the options; none are turned on without.
    pub fn build(proto: Option<CelExpressionConfig>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let Some(proto) = proto else {
            return Ok(Self::default());
        };
        coverage!(cx, proto => CelExpressionConfig {
            supported { enable_string_conversion, enable_string_concat, enable_string_functions }
        });
        Ok(Self {
            string_conversion: enable_string_conversion,
            string_concat: enable_string_concat,
            string_functions: enable_string_functions,
        })
    }
}

const OPERATORS: &[&str] = &[
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
    "in",
    "_in_",
];

/// Functions, called as such or on a value.
const FUNCTIONS: &[&str] = &[
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "int",
    "matches",
    "size",
    "startsWith",
    "timestamp",
    "type",
    "uint",
];

/// Functions on a time or a duration alone.
const OF_TIME: &[&str] = &[
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
];

const OF_STRINGS: &[&str] = &["lowerAscii", "replace", "split", "upperAscii"];

/// How deep brackets are nested in a text, those within strings aside. The parser does not count those around a whole
/// expression, though each costs it stack.
pub(super) fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(quote) = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|q| rest.starts_with(q)) {
            rest = after_string(&rest[quote.len()..], quote);
            continue;
        }
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
        rest = &rest[c.len_utf8()..];
    }
    deepest
}

/// What follows a string's closing quote.
fn after_string<'t>(text: &'t str, quote: &str) -> &'t str {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix(quote) {
            return after;
        }
        rest = &rest[c.len_utf8()..];
        if c == '\\' {
            rest = rest.chars().next().map_or(rest, |escaped| &rest[escaped.len_utf8()..]);
        }
    }
    rest
}

/// Walks the tree; an error names what cannot be evaluated.
pub(super) fn check(expr: &IdedExpr, options: CelOptions, depth: u32) -> Result<(), String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err("nested too deep".into());
    };
    match &expr.expr {
        Expr::Unspecified => Err("Invalid empty expression".into()),
        Expr::Comprehension(_) => Err("Comprehension support is disabled".into()),
        Expr::Ident(_) | Expr::Literal(_) => Ok(()),
        Expr::Select(select) => check(&select.operand, options, depth),
        Expr::List(list) => list.elements.iter().try_for_each(|e| check(e, options, depth)),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
            EntryExpr::MapEntry(e) => check(&e.key, options, depth).and_then(|()| check(&e.value, options, depth)),
            EntryExpr::StructField(e) => check(&e.value, options, depth),
        }),
        Expr::Struct(message) => Err(format!("messages cannot be made: {}", message.type_name)),
        Expr::Call(call) => check_call(call, options, depth),
    }
}

fn check_call(call: &CallExpr, options: CelOptions, depth: u32) -> Result<(), String> {
    let name = call.func_name.as_str();
    let known = OPERATORS.contains(&name)
        || FUNCTIONS.contains(&name)
        || (OF_TIME.contains(&name) && call.target.is_some())
        || (name == "string" && options.string_conversion)
        || (OF_STRINGS.contains(&name) && options.string_functions);
    if !known {
        return Err(format!("No overload found in reference resolve step for {name}"));
    }
    if let ("matches", Some(Expr::Literal(LiteralValue::String(pattern)))) = (name, call.args.last().map(|a| &a.expr)) {
        regex::Regex::new(pattern.inner()).map_err(|e| format!("invalid regular expression: {e}"))?;
    }
    let mut parts = call.target.iter().map(|t| &**t).chain(&call.args);
    parts.try_for_each(|e| check(e, options, depth))
}

/// Makes concatenations of texts the error that they are without the option: Envoy takes them, and fails to evaluate
/// them.
pub(super) fn disable_concatenation(expr: &mut IdedExpr) {
    if let Expr::Call(call) = &expr.expr
        && call.func_name == operators::ADD
        && call.args.iter().any(makes_text)
    {
        expr.expr = Expr::Ident("disabled concatenation".into());
    }
    match &mut expr.expr {
        Expr::Select(select) => disable_concatenation(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(disable_concatenation),
        Expr::Call(call) => {
            let parts = call.target.iter_mut().map(|t| &mut **t).chain(&mut call.args);
            parts.for_each(disable_concatenation);
        }
        _ => {}
    }
}

/// Whether this is a text as far as its form tells.
fn makes_text(expr: &IdedExpr) -> bool {
    match &expr.expr {
        Expr::Literal(LiteralValue::String(_)) => true,
        Expr::Call(call) => matches!(
            call.func_name.as_str(),
            "string" | "lowerAscii" | "upperAscii" | "replace"
        ),
        _ => false,
    }
}
