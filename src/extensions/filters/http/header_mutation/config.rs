//! `Mutations`: of a filter, and of a route.

use xds_protos::envoy::extensions::filters::http::header_mutation::v3::Mutations as Proto;

use super::query::QueryMutation;
use crate::{
    config::{BuildCx, ConfigResult},
    route::HeaderMutationList,
};

/// What one level changes.
#[derive(Debug, Default)]
pub(super) struct Mutations {
    pub request: HeaderMutationList,
    pub query: Vec<QueryMutation>,
    pub response: HeaderMutationList,
    pub request_trailers: HeaderMutationList,
    pub response_trailers: HeaderMutationList,
}

impl Mutations {
    pub fn build(proto: Option<Proto>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let Some(proto) = proto else { return Ok(Self::default()) };
        cx.field("mutations", |cx| {
            coverage!(cx, proto => Proto {
                supported {
                    request_mutations, query_parameter_mutations, response_mutations, response_trailers_mutations,
                    request_trailers_mutations,
                }
            });
            let mut list = |field, protos| HeaderMutationList::build(field, protos, cx);
            Ok(Self {
                request: list("request_mutations", request_mutations)?,
                response: list("response_mutations", response_mutations)?,
                request_trailers: list("request_trailers_mutations", request_trailers_mutations)?,
                response_trailers: list("response_trailers_mutations", response_trailers_mutations)?,
                query: cx.each(
                    "query_parameter_mutations",
                    query_parameter_mutations,
                    QueryMutation::build,
                )?,
            })
        })
    }
}
