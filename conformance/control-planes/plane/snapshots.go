package plane

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"

	"nuncio/conformance/control-planes/kit"
)

// Node is the node id of every proxy a scenario starts.
const Node = "conformance"

// Snapshots is go-control-plane's snapshot cache behind its ADS server.
type Snapshots struct {
	Port int
	Journal

	t       *kit.T
	network string
	address string
	options []grpc.ServerOption
	cache   cache.SnapshotCache
	version int
	mu      sync.Mutex
	grpc    *grpc.Server
}

// NewSnapshots starts the server on a free port, with nothing to say yet.
func NewSnapshots(t *kit.T, options ...grpc.ServerOption) *Snapshots {
	port := t.Port()
	return newSnapshots(t, port, "tcp", fmt.Sprintf("127.0.0.1:%d", port), options)
}

// NewSnapshotsAt starts the server on a unix socket.
func NewSnapshotsAt(t *kit.T, path string) *Snapshots {
	return newSnapshots(t, 0, "unix", path, nil)
}

func newSnapshots(t *kit.T, port int, network, address string, options []grpc.ServerOption) *Snapshots {
	s := &Snapshots{
		Port: port, t: t, network: network, address: address, options: options,
		cache: cache.NewSnapshotCache(true, cache.IDHash{}, nil),
	}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start listens again, on the same port.
func (s *Snapshots) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var l net.Listener
	s.t.Eventually(5*time.Second, "the control plane's port", func() (err error) {
		l, err = net.Listen(s.network, s.address)
		return err
	})
	callbacks := server.CallbackFuncs{
		StreamRequestFunc: func(id int64, r *discovery.DiscoveryRequest) error {
			s.add(fromSotw(id, r))
			return nil
		},
		StreamDeltaRequestFunc: func(id int64, r *discovery.DeltaDiscoveryRequest) error {
			s.add(fromDelta(id, r))
			return nil
		},
	}
	srv := server.NewServer(context.Background(), s.cache, callbacks, sotw.WithOrderedADS())
	s.grpc = grpc.NewServer(s.options...)
	discovery.RegisterAggregatedDiscoveryServiceServer(s.grpc, srv)
	go func(g *grpc.Server) { _ = g.Serve(l) }(s.grpc)
}

// Stop cuts every stream and closes the port, as a killed process would.
func (s *Snapshots) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grpc != nil {
		s.grpc.Stop()
		s.grpc = nil
	}
}

// Set replaces the whole configuration by these resources.
func (s *Snapshots) Set(resources ...Resource) {
	byType := map[string][]types.Resource{}
	for _, typeURL := range []string{ClusterType, EndpointType, ListenerType, RouteType, SecretType} {
		byType[typeURL] = nil
	}
	for _, r := range resources {
		byType[r.Type] = append(byType[r.Type], r.Message)
	}
	s.version++
	snapshot, err := cache.NewSnapshot(fmt.Sprintf("v%d", s.version), byType)
	s.t.OK(err, "snapshot")
	// One of us may call this while the server runs its callbacks: the cache has its own lock.
	s.t.OK(s.cache.SetSnapshot(context.Background(), Node, snapshot), "set snapshot")
}
