// Istiod runs istiod's own translation code and xDS server without Kubernetes: the fake discovery server
// of Istio's tests on real sockets, with the cluster and the configuration given as YAML over HTTP.
//
//	istiod -xds 127.0.0.1:15010 -xds-socket DIR/XDS -http 127.0.0.1:8080 -mesh mesh.yaml
//
// It is a program of its own because Istio's features and metrics are globals of a process: a scenario
// has a fresh one, and sets features as environment variables (PILOT_ENABLE_AMBIENT=true). It ends
// with its parent.
//
//	POST /apply      YAML documents, Kubernetes objects and Istio configuration alike: created or replaced
//	POST /delete     the same, but only kind, namespace and name are looked at
//	POST /bootstrap  what pilot-agent would start a proxy with (see bootstrap.go)
//	GET  /metrics    istiod's own, such as pilot_total_xds_rejects
//	GET  /debug/...  istiod's own, such as /debug/syncz
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"

	kubesecrets "istio.io/istio/pilot/pkg/credentials/kube"
	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/schema/kind"
	"istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/monitoring"
	"istio.io/istio/pkg/security"
	"istio.io/istio/pkg/test"
	"istio.io/istio/pkg/util/sets"
)

func main() {
	xdsAddress := flag.String("xds", "127.0.0.1:0", "address of the xDS server")
	socket := flag.String("xds-socket", "", "unix socket of the same server, as pilot-agent has it")
	address := flag.String("http", "", "address for configuration and debugging")
	meshFile := flag.String("mesh", "", "MeshConfig as YAML, over Istio's defaults")
	debounce := flag.Duration("debounce", 0, "how long changes are gathered before they are pushed")
	flag.Parse()
	err := test.Wrap(func(t test.Failer) {
		if err := serve(t, *xdsAddress, *socket, *address, *meshFile, *debounce); err != nil {
			t.Fatalf("%v", err)
		}
	})
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func serve(t test.Failer, xdsAddress, socket, address, meshFile string, debounce time.Duration) error {
	metrics, err := monitoring.RegisterPrometheusExporter(nil, nil)
	if err != nil {
		return err
	}
	text := ""
	if meshFile != "" {
		body, err := os.ReadFile(meshFile)
		if err != nil {
			return err
		}
		text = string(body)
	}
	config, err := mesh.ApplyMeshConfigDefaults(text)
	if err != nil {
		return err
	}
	server := xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		MeshConfig:                 config,
		DebounceTime:               debounce,
		DisableSecretAuthorization: true,
		ListenerBuilder:            func() (net.Listener, error) { return listen(xdsAddress, socket) },
	})
	server.Discovery.Authenticators = []security.Authenticator{tokens{}}
	if err := pushSecrets(t, server); err != nil {
		return err
	}
	store := &store{server: server}
	mux := http.NewServeMux()
	mux.Handle("/metrics", metrics)
	mux.Handle("/debug/", server.DiscoveryDebug)
	mux.HandleFunc("POST /apply", textHandler(store.apply))
	mux.HandleFunc("POST /delete", textHandler(store.remove))
	mux.HandleFunc("POST /bootstrap", func(w http.ResponseWriter, r *http.Request) {
		rendered, err := renderBootstrap(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(rendered)
	})
	return http.ListenAndServe(address, mux)
}

// pushSecrets pushes what proxies hold of a secret when it changes; the fake server leaves that out.
func pushSecrets(t test.Failer, server *xds.FakeDiscoveryServer) error {
	changed := func(kind kind.Kind, name, namespace string) {
		server.Discovery.ConfigUpdate(&model.PushRequest{
			ConfigsUpdated: sets.New(model.ConfigKey{Kind: kind, Name: name, Namespace: namespace}),
			Reason:         model.NewReasonStats(model.SecretTrigger),
		})
	}
	creds := kubesecrets.NewCredentialsController(server.KubeClient(), []func(kind.Kind, string, string){changed}, true)
	stop := test.NewStop(t)
	server.KubeClient().RunAndWait(stop)
	if !kube.WaitForCacheSync("secrets", stop, creds.HasSynced) {
		return errors.New("secrets are not synchronised")
	}
	return nil
}

// tokens believes what a bearer token says: the agents here hold their SPIFFE identity in place of a
// service account's token. Istiod asks only with XDS_AUTH_PLAINTEXT=true.
type tokens struct{}

func (tokens) AuthenticatorType() string { return "tokens" }

func (tokens) Authenticate(ctx security.AuthContext) (*security.Caller, error) {
	md, _ := metadata.FromIncomingContext(ctx.GrpcContext)
	for _, value := range md.Get("authorization") {
		if identity, ok := strings.CutPrefix(value, "Bearer "); ok {
			return &security.Caller{Identities: []string{identity}}, nil
		}
	}
	return nil, errors.New("no bearer token")
}

func textHandler(f func(string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = f(string(body))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}
}

// twoListeners is one listener on a TCP port and a unix socket.
type twoListeners struct {
	net.Listener
	socket   net.Listener
	accepted chan net.Conn
	closed   chan struct{}
}

func listen(address, socket string) (net.Listener, error) {
	tcp, err := net.Listen("tcp", address)
	if err != nil || socket == "" {
		return tcp, err
	}
	unix, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	both := &twoListeners{Listener: tcp, socket: unix, accepted: make(chan net.Conn), closed: make(chan struct{})}
	for _, l := range []net.Listener{tcp, unix} {
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				select {
				case both.accepted <- conn:
				case <-both.closed:
					return
				}
			}
		}()
	}
	return both, nil
}

func (l *twoListeners) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *twoListeners) Close() error {
	close(l.closed)
	return errors.Join(l.Listener.Close(), l.socket.Close())
}
