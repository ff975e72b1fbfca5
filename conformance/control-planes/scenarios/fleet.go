package scenarios

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// fleet is many EDS clusters behind one route, which takes the cluster's name from a request's header.
type fleet struct {
	*site
	xds   *plane.Script
	proxy *kit.Proxy
	// An upstream on every address of 127.0.0.0/8: it answers with the address it was reached at.
	upstream int
	names    []string
}

// newFleet starts a proxy with so many clusters of so many endpoints each, and waits until all of them serve.
func newFleet(s *site, clusters, endpoints int) *fleet {
	f := &fleet{site: s, xds: plane.NewScript(s.T), upstream: anyAddress(s.T)}
	for i := range clusters {
		f.names = append(f.names, fmt.Sprintf("cluster-%d", i))
	}
	f.xds.Set(plane.RouteType, "1", plane.Route(`
name: routes
virtual_hosts:
- name: all
  domains: ["*"]
  routes: [{match: {prefix: /}, route: {cluster_header: x-cluster}}]
`))
	f.xds.Set(plane.ListenerType, "1", listener("front", s.port, rds("routes")))
	var assignments []plane.Resource
	for i, name := range f.names {
		assignments = append(assignments, f.assignment(name, hosts(i, endpoints)))
	}
	f.xds.Set(plane.EndpointType, "1", assignments...)
	f.setClusters("1", 0)
	start := time.Now()
	f.proxy = s.proxy(f.xds.Port)
	f.proxy.Ready(time.Minute)
	f.active(clusters)
	f.Note("%d clusters with %d endpoints serve after %.1f s; %.0f MB", clusters, clusters*endpoints,
		time.Since(start).Seconds(), f.proxy.Usage(s.T).MB)
	return f
}

// setClusters sends all clusters; a further variant changes every one of them.
func (f *fleet) setClusters(version string, variant int) {
	var all []plane.Resource
	for _, name := range f.names {
		all = append(all, plane.Of(name, plane.ClusterType, &cluster.Cluster{
			Name:                 name,
			ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
			ConnectTimeout:       durationpb.New(time.Duration(1000+variant) * time.Millisecond),
			EdsClusterConfig: &cluster.Cluster_EdsClusterConfig{EdsConfig: &core.ConfigSource{
				ResourceApiVersion:    core.ApiVersion_V3,
				ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
			}},
		}))
	}
	f.xds.Set(plane.ClusterType, version, all...)
}

// hosts are the addresses of the i-th cluster.
func hosts(i, count int) []string {
	var out []string
	for n := range count {
		out = append(out, fmt.Sprintf("127.%d.%d.%d", 1+n, i/250, 1+i%250))
	}
	return out
}

func (f *fleet) assignment(name string, hosts []string) plane.Resource {
	var list []*endpoint.LbEndpoint
	for _, host := range hosts {
		list = append(list, &endpoint.LbEndpoint{HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{
			Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
				Address: host, PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(f.upstream)},
			}}},
		}}})
	}
	return plane.Of(name, plane.EndpointType, &endpoint.ClusterLoadAssignment{
		ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{{LbEndpoints: list}},
	})
}

// push sends one cluster's endpoints, alone.
func (f *fleet) push(version, name string, hosts []string) {
	var one []*discovery.Resource
	one = append(one, f.assignment(name, hosts).Wire(version))
	f.Expect(f.xds.Push(plane.EndpointType, plane.EndpointType, version, one...) != "", "nobody watches the endpoints")
}

// active waits until so many clusters serve besides that of the control plane.
func (f *fleet) active(clusters int) {
	f.Eventually(time.Minute, fmt.Sprintf("%d clusters are active", clusters), func() error {
		active, warming := f.proxy.Stat("cluster_manager.active_clusters"), f.proxy.Stat("cluster_manager.warming_clusters")
		if active != clusters+1 || warming != 0 {
			return fmt.Errorf("%d are, %d are warming", active, warming)
		}
		return nil
	})
}

// changes is the sum of every cluster's changes of membership.
func (f *fleet) changes() (sum int) {
	_, body, err := f.proxy.Get("/stats?usedonly&filter=" + `membership_change$`)
	f.OK(err, "/stats")
	for _, line := range strings.Split(strings.TrimSpace(body), "\n") {
		var n int
		if at := strings.LastIndex(line, ": "); at >= 0 {
			_, err := fmt.Sscan(line[at+2:], &n)
			f.OK(err, line)
		}
		sum += n
	}
	return sum
}

// ask sends one request to a cluster and gives the address that answered.
func (f *fleet) ask(client *http.Client, name string) (string, error) {
	request, err := http.NewRequest(http.MethodGet, f.url("/"), nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("x-cluster", name)
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %d %.80s", name, response.StatusCode, body)
	}
	return string(body), err
}

// load asks clusters at random.
func (f *fleet) load() *kit.Load {
	return f.Load(kit.LoadOptions{URL: f.url("/"), Request: func(r *http.Request) {
		r.Header.Set("x-cluster", f.names[rand.IntN(len(f.names))])
	}})
}

// anyAddress is the port of an upstream on all addresses; it answers with the one it was reached at.
func anyAddress(t *kit.T) int {
	socket, err := net.Listen("tcp4", "0.0.0.0:0")
	t.OK(err, "upstream")
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		fmt.Fprint(w, local.IP)
	})}
	go func() { _ = server.Serve(socket) }()
	t.Cleanup(func() { _ = server.Close() })
	return socket.Addr().(*net.TCPAddr).Port
}
