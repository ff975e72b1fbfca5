package plane

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"nuncio/conformance/control-planes/kit"
)

// AgentSocket is where pilot-agent serves a workload's secrets, from the proxy's working directory.
const AgentSocket = "var/run/secrets/workload-spiffe-uds/socket"

// SDS serves secrets as pilot-agent does: state of the world only, each stream the names it asks for.
type SDS struct {
	t       *kit.T
	mu      sync.Mutex
	version int
	secrets map[string]*anypb.Any
	changed chan struct{}
}

// NewSDS serves on the agent's socket in the scenario's folder, with nothing to say yet.
func NewSDS(t *kit.T) *SDS {
	s := &SDS{t: t, secrets: map[string]*anypb.Any{}, changed: make(chan struct{})}
	// The scenario's folder may be too deep for a socket's path.
	short := t.SocketDir()
	link := filepath.Join(t.Dir, filepath.Dir(AgentSocket))
	t.OK(os.MkdirAll(filepath.Dir(link), 0o755), "folder of secrets")
	t.OK(os.Symlink(short, link), "folder of secrets")
	listener, err := net.Listen("unix", filepath.Join(short, filepath.Base(AgentSocket)))
	t.OK(err, "socket of secrets")
	server := grpc.NewServer()
	secret.RegisterSecretDiscoveryServiceServer(server, s)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return s
}

// Set replaces secrets by name; streams that want them are told.
func (s *SDS) Set(secrets ...Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range secrets {
		s.secrets[r.Name] = r.Any
	}
	s.version++
	close(s.changed)
	s.changed = make(chan struct{})
}

// answer is what a stream is told, or nil when not all of it is known yet.
func (s *SDS) answer(names []string) (*discovery.DiscoveryResponse, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	version := strconv.Itoa(s.version)
	response := &discovery.DiscoveryResponse{TypeUrl: SecretType, VersionInfo: version, Nonce: version}
	for _, name := range names {
		found, ok := s.secrets[name]
		if !ok {
			return nil, s.changed
		}
		response.Resources = append(response.Resources, found)
	}
	return response, s.changed
}

func (s *SDS) StreamSecrets(stream secret.SecretDiscoveryService_StreamSecretsServer) error {
	asked := make(chan []string)
	ended := make(chan error, 1)
	go func() {
		first := true
		for {
			request, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			if request.ErrorDetail != nil {
				ended <- status.Error(codes.InvalidArgument, request.ErrorDetail.Message)
				return
			}
			// What has a nonce acknowledges: agents ask for one name a stream.
			if first || request.ResponseNonce == "" {
				select {
				case asked <- request.ResourceNames:
				case <-stream.Context().Done():
					return
				}
			}
			first = false
		}
	}()
	var names []string
	changed := make(chan struct{})
	for {
		select {
		case err := <-ended:
			return err
		case names = <-asked:
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
		var response *discovery.DiscoveryResponse
		response, changed = s.answer(names)
		if response == nil || len(names) == 0 {
			continue
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

func (s *SDS) DeltaSecrets(secret.SecretDiscoveryService_DeltaSecretsServer) error {
	return status.Error(codes.Unimplemented, "not implemented")
}

func (s *SDS) FetchSecrets(context.Context, *discovery.DiscoveryRequest) (*discovery.DiscoveryResponse, error) {
	return nil, status.Error(codes.Unimplemented, "not implemented")
}
