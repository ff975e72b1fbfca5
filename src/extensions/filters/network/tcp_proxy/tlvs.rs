//! `proxy_protocol_tlvs`: what a PROXY protocol header to the upstream tells besides addresses.

use bytes::Bytes;
use xds_protos::envoy::{
    config::core::v3::TlvEntry, extensions::filters::network::tcp_proxy::v3::ProxyProtocolTlvMergePolicy as Merge,
};

use crate::{
    config::{BuildCx, ConfigResult},
    formatter::{Format, FormatCx},
    http::{StreamInfo, stream_info::ProxyData},
};

/// TLVs, and what becomes of those that the client's own header has.
pub(super) struct Tlvs {
    fixed: Vec<(u8, Bytes)>,
    formatted: Vec<(u8, Format)>,
    merge: Merge,
}

enum Value {
    Fixed(Bytes),
    Formatted(Format),
}

impl Tlvs {
    pub(super) fn build(protos: Vec<TlvEntry>, merge: Merge, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let (mut fixed, mut formatted) = (Vec::new(), Vec::new());
        for (kind, value) in cx.each("proxy_protocol_tlvs", protos, tlv)? {
            match value {
                Value::Fixed(value) => fixed.push((kind, value)),
                Value::Formatted(format) => formatted.push((kind, format)),
            }
        }
        Ok(Self {
            fixed,
            formatted,
            merge,
        })
    }

    /// What the upstream is told of the client.
    pub(super) fn header(&self, info: &StreamInfo) -> ProxyData {
        let told = ProxyData::told(info);
        if self.merge == Merge::AddIfAbsent
            && let Some(told) = told
        {
            return told;
        }
        let known = told.is_some();
        let mut data = told.unwrap_or_else(|| ProxyData::of_client(info));
        let own = self.values(info);
        if known && self.merge == Merge::AppendIfExistsOrAdd {
            data.tlvs.extend(own);
            return data;
        }
        let kept = std::mem::take(&mut data.tlvs);
        let kept = kept
            .into_iter()
            .filter(|(kind, _)| own.iter().all(|(own, _)| own != kind));
        data.tlvs = own.iter().cloned().chain(kept).collect();
        data
    }

    fn values(&self, info: &StreamInfo) -> Vec<(u8, Bytes)> {
        let cx = FormatCx {
            request: None,
            response: None,
            info,
        };
        let formatted = self.formatted.iter().map(|(kind, format)| {
            let mut text = Vec::new();
            format.write(&mut text, &cx);
            (*kind, text.into())
        });
        self.fixed.iter().cloned().chain(formatted).collect()
    }
}

fn tlv(proto: TlvEntry, cx: &mut BuildCx<'_>) -> ConfigResult<(u8, Value)> {
    coverage!(cx, proto => TlvEntry { supported { r#type, value, format_string } });
    // The API's rules have checked the range.
    let kind = u8::try_from(r#type).unwrap_or(u8::MAX);
    let value = match format_string {
        Some(_) if !value.is_empty() => {
            return Err(cx.error("Invalid TLV configuration: only one of 'value' or 'format_string' may be set."));
        }
        None if value.is_empty() => {
            return Err(cx.error("Invalid TLV configuration: one of 'value' or 'format_string' must be set."));
        }
        None => Value::Fixed(value.into()),
        Some(format) => Value::Formatted(cx.field("format_string", |cx| Format::build(format, cx))?),
    };
    Ok((kind, value))
}
