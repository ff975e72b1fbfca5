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
	all = append(all, goControlPlane()...)
	return all
}
