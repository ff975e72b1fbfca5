// Package scenarios holds what is proved: each scenario is one behaviour a control plane relies on.
package scenarios

import "nuncio/conformance/control-planes/kit"

// Scenario is one named proof.
type Scenario struct {
	Name string
	Run  func(*kit.T)
}

// All is every scenario, in the order they run.
func All() []Scenario {
	var all []Scenario
	all = append(all, restarts()...)
	all = append(all, hotRestarts()...)
	all = append(all, nacks()...)
	all = append(all, order()...)
	all = append(all, hostile()...)
	all = append(all, change()...)
	all = append(all, listeners()...)
	all = append(all, scale()...)
	all = append(all, transports()...)
	all = append(all, files()...)
	all = append(all, rateLimits()...)
	all = append(all, goControlPlane()...)
	all = append(all, istioBootstraps()...)
	all = append(all, istioAgents()...)
	all = append(all, istioWaypoint()...)
	all = append(all, istioGateways()...)
	all = append(all, istioSidecars()...)
	return all
}
