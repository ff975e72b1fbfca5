//! CEL expressions over Envoy's attributes (`request.path`, `source.address`, `metadata`, ...): access-log filters,
//! conditions of RBAC policies, matcher trees, `%CEL(...)%`.
//!
//! An expression comes as text or as a syntax tree. When it is configured it is checked against what Envoy evaluates,
//! and every attribute in it becomes a variable of its own, so that evaluating it looks up what it names and nothing
//! else. What goes wrong while it is evaluated (a header that is not there, a comparison of different types) makes it
//! match nothing, as in Envoy.

mod attributes;
mod check;
mod print;
mod proto;

use std::sync::{Arc, LazyLock};

use cel::{Context, Env, IdedExpr, Value, extensions, parser::PrattParser};
use xds_protos::{
    cel::expr as cel_proto,
    google::{
        api::expr::v1alpha1,
        protobuf::{Value as JsonValue, value::Kind},
    },
    prost::Message,
};

pub use check::CelOptions;

use self::attributes::Attribute;
use super::tree::MatchCx;
use crate::config::{BuildCx, ConfigResult};

/// The longest expression in bytes of its text; Envoy has no such limit.
const MAX_TEXT: usize = 16 * 1024;

/// How deep a text may be nested, as in Envoy.
const MAX_DEPTH: u16 = 32;

/// The most parts of a text.
const MAX_NODES: usize = 4096;

/// How deep a syntax tree may be, so that evaluating it cannot exhaust a stack. A sum of so many terms is so deep.
const MAX_TREE: u32 = 100;

// Functions are the same for every expression.
static FUNCTIONS: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    // Fails only for names that are there already; then they do what is asked for.
    let _ = env.add_extension(extensions::strings);
    Arc::new(env)
});

/// A compiled expression.
#[derive(Debug)]
pub struct CelExpression {
    expr: IdedExpr,
    /// The variables of `expr`.
    attributes: Vec<(String, Attribute)>,
}

impl CelExpression {
    /// Compiles a text.
    pub fn parse(text: &str, options: CelOptions, cx: &BuildCx<'_>) -> ConfigResult<Self> {
        let compiled = Self::compile(text, options).map_err(|e| cx.error(e))?;
        Ok(compiled.with_node(cx))
    }

    /// Whether it is an expression at all, whatever it names.
    pub fn parses(text: &str) -> bool {
        text.len() <= MAX_TEXT && check::nesting(text) <= usize::from(MAX_DEPTH) && parsed(text).is_ok()
    }

    /// Compiles a text; the error is Envoy's, as far as it is known here.
    pub fn compile(text: &str, options: CelOptions) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err(format!(
                "Not able to parse filter expression: longer than {MAX_TEXT} bytes"
            ));
        }
        if check::nesting(text) > usize::from(MAX_DEPTH) {
            return Err(format!(
                "Not able to parse filter expression: Expression recursion limit exceeded. limit: {MAX_DEPTH}"
            ));
        }
        let expr = parsed(text).map_err(|e| format!("Not able to parse filter expression: {e}"))?;
        Self::new(expr, options)
    }

    /// Expressions may name the proxy's node.
    fn with_node(mut self, cx: &BuildCx<'_>) -> Self {
        attributes::set_node(&mut self.attributes, &cx.server.node);
        self
    }

    /// Compiles a syntax tree.
    pub fn build(proto: cel_proto::Expr, options: CelOptions, cx: &BuildCx<'_>) -> ConfigResult<Self> {
        let expr = proto::expression(proto, MAX_TREE);
        let compiled = expr.and_then(|e| Self::new(e, options)).map_err(|e| cx.error(e))?;
        Ok(compiled.with_node(cx))
    }

    /// Compiles a syntax tree in the older package, which says the same.
    pub fn build_v1alpha1(proto: v1alpha1::Expr, options: CelOptions, cx: &BuildCx<'_>) -> ConfigResult<Self> {
        let same = cel_proto::Expr::decode(proto.encode_to_vec().as_slice());
        Self::build(same.map_err(|e| cx.error(e.to_string()))?, options, cx)
    }

    fn new(mut expr: IdedExpr, options: CelOptions) -> Result<Self, String> {
        check::check(&expr, options, MAX_TREE).map_err(|e| format!("failed to create an expression: {e}"))?;
        if !options.string_concat {
            check::disable_concatenation(&mut expr);
        }
        let mut attributes = Vec::new();
        attributes::bind(&mut expr, &mut attributes);
        Ok(Self { expr, attributes })
    }

    /// Whether it is true here. Errors and values of other types are not.
    pub fn matches(&self, cx: &MatchCx<'_>) -> bool {
        matches!(self.evaluate(cx), Some(Value::Bool(true)))
    }

    /// Its value here as `%CEL(..)%` shows it.
    pub fn text(&self, cx: &MatchCx<'_>) -> Option<String> {
        self.evaluate(cx).and_then(|v| print::text(&v))
    }

    /// Its value here as `%TYPED_CEL(..)%` shows it in JSON; none for what JSON has nothing for.
    pub fn json(&self, cx: &MatchCx<'_>) -> Option<JsonValue> {
        let json = print::json(&self.evaluate(cx)?)?;
        (!matches!(json.kind, Some(Kind::NullValue(_)))).then_some(json)
    }

    fn evaluate(&self, cx: &MatchCx<'_>) -> Option<Value> {
        let mut context = Context::with_env(FUNCTIONS.clone());
        for (name, attribute) in &self.attributes {
            // What is not there stays unbound: naming it is the error that Envoy makes of it.
            if let Some(value) = attribute.value(cx) {
                context.add_variable_from_value(name.as_str(), value);
            }
        }
        Value::resolve(&self.expr, &context).ok()
    }
}

fn parsed(text: &str) -> Result<IdedExpr, String> {
    let parser = PrattParser::new()
        .max_recursion_depth(MAX_DEPTH)
        .max_expression_node_count(MAX_NODES);
    parser.parse(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
