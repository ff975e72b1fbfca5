//! `cel.expr.Expr` -> the syntax tree that is evaluated.

use cel::{
    IdedExpr,
    common::ast::{
        CallExpr, EntryExpr, Expr, IdedEntryExpr, ListExpr, LiteralValue, MapEntryExpr, MapExpr, SelectExpr,
    },
};
use xds_protos::cel::expr::{
    Constant, Expr as Proto,
    constant::ConstantKind,
    expr::{ExprKind, create_struct::entry::KeyKind},
};

/// Converts a tree, `depth` levels at most.
pub(super) fn expression(proto: Proto, depth: u32) -> Result<IdedExpr, String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err("failed to create an expression: nested too deep".into());
    };
    let boxed = |e: Option<Box<Proto>>| expression(e.map(|e| *e).unwrap_or_default(), depth).map(Box::new);
    let expr = match proto.expr_kind {
        None => Expr::Unspecified,
        Some(ExprKind::ConstExpr(constant)) => Expr::Literal(literal(constant)?),
        Some(ExprKind::IdentExpr(ident)) => Expr::Ident(ident.name),
        Some(ExprKind::SelectExpr(select)) => Expr::Select(SelectExpr {
            operand: boxed(select.operand)?,
            field: select.field,
            test: select.test_only,
        }),
        Some(ExprKind::CallExpr(call)) => Expr::Call(CallExpr {
            // Older trees call the operator by its word.
            func_name: match call.function.as_str() {
                "in" | "_in_" => "@in".to_owned(),
                _ => call.function,
            },
            target: call.target.map(|t| boxed(Some(t))).transpose()?,
            args: call
                .args
                .into_iter()
                .map(|a| expression(a, depth))
                .collect::<Result<_, _>>()?,
        }),
        Some(ExprKind::ListExpr(list)) => Expr::List(ListExpr::new(
            list.elements
                .into_iter()
                .map(|e| expression(e, depth))
                .collect::<Result<_, _>>()?,
        )),
        Some(ExprKind::StructExpr(message)) => {
            if !message.message_name.is_empty() {
                return Err(format!("messages cannot be made: {}", message.message_name));
            }
            let entries = message.entries.into_iter().map(|entry| {
                let Some(KeyKind::MapKey(key)) = entry.key_kind else {
                    return Err("a map needs keys".to_owned());
                };
                Ok(IdedEntryExpr {
                    id: 0,
                    expr: EntryExpr::MapEntry(MapEntryExpr {
                        key: expression(key, depth)?,
                        value: expression(entry.value.unwrap_or_default(), depth)?,
                        optional: false,
                    }),
                })
            });
            Expr::Map(MapExpr {
                entries: entries.collect::<Result<_, _>>()?,
            })
        }
        Some(ExprKind::ComprehensionExpr(_)) => return Err("Comprehension support is disabled".into()),
    };
    Ok(IdedExpr { id: 0, expr })
}

fn literal(constant: Constant) -> Result<LiteralValue, String> {
    Ok(match constant.constant_kind {
        None => return Err("Invalid empty constant".into()),
        Some(ConstantKind::NullValue(_)) => LiteralValue::Null,
        Some(ConstantKind::BoolValue(v)) => LiteralValue::Boolean(v.into()),
        Some(ConstantKind::Int64Value(v)) => LiteralValue::Int(v.into()),
        Some(ConstantKind::Uint64Value(v)) => LiteralValue::UInt(v.into()),
        Some(ConstantKind::DoubleValue(v)) => LiteralValue::Double(v.into()),
        Some(ConstantKind::StringValue(v)) => LiteralValue::String(v.into()),
        Some(ConstantKind::BytesValue(v)) => LiteralValue::Bytes(v.into()),
        Some(ConstantKind::DurationValue(_) | ConstantKind::TimestampValue(_)) => {
            return Err("constants of time are not supported: use duration() and timestamp()".into());
        }
    })
}
