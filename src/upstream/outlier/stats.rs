//! Statistics of outlier detection, with Envoy's names.

crate::stats_block! {
    /// `cluster.<name>.outlier_detection.`
    pub struct OutlierStats {
        counter ejections_consecutive_5xx => "outlier_detection.ejections_consecutive_5xx", "Ejections for 5xx (deprecated)";
        counter ejections_detected_consecutive_5xx => "outlier_detection.ejections_detected_consecutive_5xx", "Hosts with too many 5xx";
        counter ejections_detected_consecutive_gateway_failure => "outlier_detection.ejections_detected_consecutive_gateway_failure", "Hosts with too many gateway failures";
        counter ejections_detected_consecutive_local_origin_failure => "outlier_detection.ejections_detected_consecutive_local_origin_failure", "Hosts with too many failures on this side";
        counter ejections_detected_degradation => "outlier_detection.ejections_detected_degradation", "Hosts that said they are degraded";
        counter ejections_detected_failure_percentage => "outlier_detection.ejections_detected_failure_percentage", "Hosts with too high a share of failures";
        counter ejections_detected_local_origin_failure_percentage => "outlier_detection.ejections_detected_local_origin_failure_percentage", "Likewise, of failures on this side";
        counter ejections_detected_local_origin_success_rate => "outlier_detection.ejections_detected_local_origin_success_rate", "Hosts that fail more than others, on this side";
        counter ejections_detected_success_rate => "outlier_detection.ejections_detected_success_rate", "Hosts that fail more than others";
        counter ejections_enforced_consecutive_5xx => "outlier_detection.ejections_enforced_consecutive_5xx", "Ejected for 5xx";
        counter ejections_enforced_consecutive_gateway_failure => "outlier_detection.ejections_enforced_consecutive_gateway_failure", "Ejected for gateway failures";
        counter ejections_enforced_consecutive_local_origin_failure => "outlier_detection.ejections_enforced_consecutive_local_origin_failure", "Ejected for failures on this side";
        counter ejections_enforced_failure_percentage => "outlier_detection.ejections_enforced_failure_percentage", "Ejected for their share of failures";
        counter ejections_enforced_local_origin_failure_percentage => "outlier_detection.ejections_enforced_local_origin_failure_percentage", "Likewise, on this side";
        counter ejections_enforced_local_origin_success_rate => "outlier_detection.ejections_enforced_local_origin_success_rate", "Ejected because others fail less, on this side";
        counter ejections_enforced_success_rate => "outlier_detection.ejections_enforced_success_rate", "Ejected because others fail less";
        counter ejections_enforced_total => "outlier_detection.ejections_enforced_total", "Hosts ejected";
        counter ejections_overflow => "outlier_detection.ejections_overflow", "Ejections left out because of max_ejection_percent";
        counter ejections_success_rate => "outlier_detection.ejections_success_rate", "Ejections because others fail less (deprecated)";
        counter ejections_total => "outlier_detection.ejections_total", "Ejections (deprecated)";
        gauge ejections_active => "outlier_detection.ejections_active", "Hosts ejected now";
    }
}
