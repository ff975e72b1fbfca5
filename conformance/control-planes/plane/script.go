package plane

import (
	"fmt"
	"net"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"nuncio/conformance/control-planes/kit"
)

// Script is an ADS server that does as it is told: it withholds what was not given, never repeats
// what was refused, and sends any bytes on demand.
type Script struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	Journal
	Port int

	t    *kit.T
	grpc *grpc.Server

	mu      sync.Mutex
	current map[string]*content
	streams map[int64]*stream
	serial  int64
}

// content is what the server has to say of one type.
type content struct {
	version   string
	resources []Resource
}

// stream is one open stream; delta tells its dialect.
type stream struct {
	delta bool
	send  func(typeURL, version, nonce string, resources []*discovery.Resource, removed []string) error
	subs  map[string]*subscription
}

// subscription is what one stream wants of one type, and what it has.
type subscription struct {
	wildcard bool
	names    map[string]bool
	have     map[string]string // delta: name -> version
}

// NewScript starts the server on a free port, with nothing to say yet.
func NewScript(t *kit.T) *Script {
	s := &Script{Port: t.Port(), t: t, current: map[string]*content{}}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start listens again, on the same port.
func (s *Script) Start() {
	var l net.Listener
	s.t.Eventually(5*time.Second, "the control plane's port", func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port))
		return err
	})
	s.mu.Lock()
	s.streams = map[int64]*stream{}
	s.mu.Unlock()
	s.grpc = grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(s.grpc, s)
	go func(g *grpc.Server) { _ = g.Serve(l) }(s.grpc)
}

// Stop cuts every stream and closes the port.
func (s *Script) Stop() { s.grpc.Stop() }

// Set gives the server new content of one type and sends it to whoever is subscribed. It returns
// the nonce of the last response sent, empty if nobody is subscribed.
func (s *Script) Set(typeURL, version string, resources ...Resource) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current[typeURL] = &content{version, resources}
	nonce := ""
	for _, st := range s.streams {
		if sub := st.subs[typeURL]; sub != nil {
			if n := s.answer(st, typeURL, sub); n != "" {
				nonce = n
			}
		}
	}
	return nonce
}

// Push sends these very bytes to every stream subscribed to the type, whatever the server's content
// is, and returns the nonce. `as` is the response's own type URL.
func (s *Script) Push(typeURL, as, version string, resources ...*discovery.Resource) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	nonce := ""
	for _, st := range s.streams {
		if st.subs[typeURL] != nil {
			nonce = s.nonce()
			_ = st.send(as, version, nonce, resources, nil)
		}
	}
	return nonce
}

// Accepted waits for the ACK of a nonce, Refused for its NACK.
func (s *Script) Accepted(t *kit.T, nonce, what string) {
	t.Expect(nonce != "", "%s: nobody was subscribed", what)
	r := s.Await(t, 0, "an answer to "+what, func(r Request) bool { return r.Nonce == nonce })
	t.Expect(r.Error == "", "%s was refused: %s", what, r.Error)
}

// Refused is the NACK of this nonce.
func (s *Script) Refused(t *kit.T, nonce, what string) Request {
	t.Expect(nonce != "", "%s: nobody was subscribed", what)
	r := s.Await(t, 0, "an answer to "+what, func(r Request) bool { return r.Nonce == nonce })
	t.Expect(r.Error != "", "%s was accepted", what)
	return r
}

// StreamAggregatedResources speaks state of the world.
func (s *Script) StreamAggregatedResources(g discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	id, st := s.open(false, func(typeURL, version, nonce string, resources []*discovery.Resource, _ []string) error {
		out := &discovery.DiscoveryResponse{
			TypeUrl: typeURL, VersionInfo: version, Nonce: nonce,
			ControlPlane: &core.ControlPlane{Identifier: "script"},
		}
		for _, r := range resources {
			body := r.Resource
			if r.Ttl != nil {
				// Only the wrapper has room for a time to live.
				body, _ = anypb.New(r)
			}
			out.Resources = append(out.Resources, body)
		}
		return g.Send(out)
	})
	defer s.close(id)
	for {
		r, err := g.Recv()
		if err != nil {
			return err
		}
		s.add(fromSotw(id, r))
		s.mu.Lock()
		s.sotw(st, r)
		s.mu.Unlock()
	}
}

// sotw answers a first request and one that wants more names than the last.
func (s *Script) sotw(st *stream, r *discovery.DiscoveryRequest) {
	sub := st.subs[r.TypeUrl]
	fresh := sub == nil
	if fresh {
		sub = &subscription{wildcard: len(r.ResourceNames) == 0}
		st.subs[r.TypeUrl] = sub
	}
	names := map[string]bool{}
	for _, name := range r.ResourceNames {
		fresh = fresh || !sub.names[name]
		names[name] = true
	}
	sub.names = names
	if fresh {
		s.answer(st, r.TypeUrl, sub)
	}
}

// DeltaAggregatedResources speaks the incremental dialect.
func (s *Script) DeltaAggregatedResources(g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	id, st := s.open(true, func(typeURL, version, nonce string, resources []*discovery.Resource, removed []string) error {
		return g.Send(&discovery.DeltaDiscoveryResponse{
			TypeUrl: typeURL, SystemVersionInfo: version, Nonce: nonce,
			Resources: resources, RemovedResources: removed,
			ControlPlane: &core.ControlPlane{Identifier: "script"},
		})
	})
	defer s.close(id)
	for {
		r, err := g.Recv()
		if err != nil {
			return err
		}
		s.add(fromDelta(id, r))
		s.mu.Lock()
		s.delta(st, r)
		s.mu.Unlock()
	}
}

func (s *Script) delta(st *stream, r *discovery.DeltaDiscoveryRequest) {
	sub := st.subs[r.TypeUrl]
	if sub == nil {
		sub = &subscription{wildcard: len(r.ResourceNamesSubscribe) == 0, names: map[string]bool{}, have: map[string]string{}}
		for name, version := range r.InitialResourceVersions {
			sub.have[name] = version
		}
		st.subs[r.TypeUrl] = sub
	} else if len(r.ResourceNamesSubscribe) == 0 {
		s.forget(sub, r.ResourceNamesUnsubscribe)
		return
	}
	for _, name := range r.ResourceNamesSubscribe {
		if name == "*" {
			sub.wildcard = true
		} else {
			sub.names[name] = true
		}
	}
	s.forget(sub, r.ResourceNamesUnsubscribe)
	s.answer(st, r.TypeUrl, sub)
}

func (s *Script) forget(sub *subscription, names []string) {
	for _, name := range names {
		delete(sub.names, name)
		delete(sub.have, name)
	}
}

// answer sends what the subscription lacks, and returns the nonce if it sent anything.
func (s *Script) answer(st *stream, typeURL string, sub *subscription) string {
	content := s.current[typeURL]
	if content == nil {
		return ""
	}
	var out []*discovery.Resource
	present := map[string]bool{}
	for _, r := range content.resources {
		if !sub.wildcard && !sub.names[r.Name] {
			continue
		}
		present[r.Name] = true
		if st.delta && sub.have[r.Name] == content.version {
			continue
		}
		out = append(out, &discovery.Resource{Name: r.Name, Version: content.version, Resource: r.Any})
	}
	var removed []string
	if st.delta {
		for name := range sub.have {
			if !present[name] {
				removed = append(removed, name)
				delete(sub.have, name)
			}
		}
		for _, r := range out {
			sub.have[r.Name] = content.version
		}
		if len(out) == 0 && len(removed) == 0 {
			return ""
		}
	} else if len(out) == 0 && !sub.wildcard {
		return ""
	}
	nonce := s.nonce()
	_ = st.send(typeURL, content.version, nonce, out, removed)
	return nonce
}

func (s *Script) open(delta bool, send func(string, string, string, []*discovery.Resource, []string) error) (int64, *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serial++
	st := &stream{delta: delta, send: send, subs: map[string]*subscription{}}
	s.streams[s.serial] = st
	return s.serial, st
}

func (s *Script) close(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, id)
}

func (s *Script) nonce() string {
	s.serial++
	return fmt.Sprintf("n%d", s.serial)
}

// Raw wraps bytes that claim to be of a type.
func Raw(name, version, typeURL string, body []byte) *discovery.Resource {
	return &discovery.Resource{Name: name, Version: version, Resource: &anypb.Any{TypeUrl: typeURL, Value: body}}
}

// Wire is the resource as a response carries it.
func (r Resource) Wire(version string) *discovery.Resource {
	return &discovery.Resource{Name: r.Name, Version: version, Resource: r.Any}
}

// Content is what the server now says of a type.
func (s *Script) Content(typeURL string) []Resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.current[typeURL]; c != nil {
		return append([]Resource(nil), c.resources...)
	}
	return nil
}

// Wire is the content of a type as a response carries it.
func (s *Script) Wire(typeURL, version string) []*discovery.Resource {
	var out []*discovery.Resource
	for _, r := range s.Content(typeURL) {
		out = append(out, r.Wire(version))
	}
	return out
}

// PushTTL sends resources that live so long.
func (s *Script) PushTTL(typeURL, version string, ttl time.Duration, resources ...Resource) string {
	var out []*discovery.Resource
	for _, r := range resources {
		wire := r.Wire(version)
		wire.Ttl = durationpb.New(ttl)
		out = append(out, wire)
	}
	return s.Push(typeURL, typeURL, version, out...)
}

// Heartbeat renews resources without their content.
func (s *Script) Heartbeat(typeURL, version string, ttl time.Duration, names ...string) string {
	var out []*discovery.Resource
	for _, name := range names {
		out = append(out, &discovery.Resource{Name: name, Version: version, Ttl: durationpb.New(ttl)})
	}
	return s.Push(typeURL, typeURL, version, out...)
}
