package plane

import (
	"fmt"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"nuncio/conformance/control-planes/kit"
)

// Request is what a proxy said, state-of-the-world and delta in one shape.
type Request struct {
	Stream      int64
	Delta       bool
	Type        string
	Version     string            // state of the world only
	Nonce       string            // empty: not an answer
	Names       []string          // subscribed (delta: newly)
	Unsubscribe []string          // delta only
	Initial     map[string]string // delta only: initial_resource_versions
	Node        *core.Node
	Error       string // empty: not a refusal
}

func fromSotw(stream int64, r *discovery.DiscoveryRequest) Request {
	return Request{
		Stream: stream, Type: r.TypeUrl, Version: r.VersionInfo, Nonce: r.ResponseNonce,
		Names: r.ResourceNames, Node: r.Node, Error: r.GetErrorDetail().GetMessage(),
	}
}

func fromDelta(stream int64, r *discovery.DeltaDiscoveryRequest) Request {
	return Request{
		Stream: stream, Delta: true, Type: r.TypeUrl, Nonce: r.ResponseNonce,
		Names: r.ResourceNamesSubscribe, Unsubscribe: r.ResourceNamesUnsubscribe,
		Initial: r.InitialResourceVersions, Node: r.Node, Error: r.GetErrorDetail().GetMessage(),
	}
}

// Journal is every request a control plane has received, in order.
type Journal struct {
	journalMu sync.Mutex
	requests  []Request
}

func (j *Journal) add(r Request) {
	j.journalMu.Lock()
	defer j.journalMu.Unlock()
	j.requests = append(j.requests, r)
}

// Mark is a place in the journal: what is said from now on.
func (j *Journal) Mark() int {
	j.journalMu.Lock()
	defer j.journalMu.Unlock()
	return len(j.requests)
}

// Since is what was said after the mark.
func (j *Journal) Since(mark int) []Request {
	j.journalMu.Lock()
	defer j.journalMu.Unlock()
	return append([]Request(nil), j.requests[mark:]...)
}

// Await is the first request after the mark that is like this.
func (j *Journal) Await(t *kit.T, mark int, what string, like func(Request) bool) Request {
	var found Request
	t.Eventually(20*time.Second, what, func() error {
		since := j.Since(mark)
		for _, r := range since {
			if like(r) {
				found = r
				return nil
			}
		}
		if len(since) > 0 {
			last := since[len(since)-1]
			return fmt.Errorf("%d requests, the last for %s, nonce %q, error %q", len(since), last.Type, last.Nonce, last.Error)
		}
		return fmt.Errorf("no request")
	})
	return found
}
