package scenarios

import (
	"fmt"
	"net"
	"time"

	"nuncio/conformance/control-planes/plane"
)

// order: warming, make-before-break, removals, and what the proxy does while it is told nothing.
func order() []Scenario {
	var out []Scenario
	out = append(out, both("order/make-before-break", makeBeforeBreak)...)
	out = append(out, both("order/changed-cluster-warms-beside-the-old", changedClusterWarms)...)
	out = append(out, both("order/changed-listener-warms-beside-the-old", changedListenerWarms)...)
	out = append(out, both("order/removals", removals)...)
	out = append(out, both("order/initial-fetch-timeout", initialFetchTimeout)...)
	out = append(out, both("order/initial-fetch-timeout-of-routes", routesTimeout)...)
	out = append(out, both("order/node-on-first-message-only", nodeOnce)...)
	out = append(out, both("order/unsubscribes-what-it-no-longer-needs", unsubscribes)...)
	out = append(out, both("order/resource-ttl", resourceTTL)...)
	out = append(out, both("order/node-on-every-message", nodeAlways)...)
	return out
}

// makeBeforeBreak moves a route to a new cluster whose endpoints come late. The server learns from
// the held-back ACK when the cluster is warm; then the route moves; then the old cluster goes.
func makeBeforeBreak(s *site) {
	two := s.Upstream("two", nil)
	xds, proxy := s.scripted()
	one := xds.Content(plane.EndpointType)
	load := s.Load(loadOf(s))
	waitFor(s, load, "one", 20)

	nonce := xds.Set(plane.ClusterType, "2", edsCluster("back"), edsCluster("next"))
	s.Expect(nonce != "", "nobody was subscribed to clusters")
	xds.Await(s.T, 0, "the subscription to the new cluster's endpoints", wants(plane.EndpointType, "next"))
	s.still(500*time.Millisecond, "clusters are acknowledged while one is warming", func() error {
		for _, r := range xds.Since(0) {
			if r.Nonce == nonce {
				return fmt.Errorf("answered too early, error %q", r.Error)
			}
		}
		return nil
	})
	s.stat(proxy, "cluster_manager.warming_clusters", 1)
	xds.Set(plane.EndpointType, "2", append(one, endpoints("next", two.Port))...)
	xds.Accepted(s.T, nonce, "the clusters, now warm")
	xds.Accepted(s.T, xds.Set(plane.RouteType, "2", routes("routes", "next", "2")), "the moved route")
	waitFor(s, load, "two", 20)
	xds.Accepted(s.T, xds.Set(plane.ClusterType, "3", edsCluster("next")), "the old cluster's removal")
	waitFor(s, load, "two", 20)
	load.StopClean(s.T)
	proxy.Stop()
}

// changedClusterWarms: the old version of a cluster serves until the new one has its endpoints.
func changedClusterWarms(s *site) {
	two := s.Upstream("two", nil)
	xds, proxy := s.scripted()
	load := s.Load(loadOf(s))
	waitFor(s, load, "one", 20)
	// Another service name: the endpoints are a resource the proxy does not have yet.
	changed := plane.Cluster(`
name: back
type: EDS
connect_timeout: 2s
eds_cluster_config: {service_name: elsewhere, eds_config: {resource_api_version: V3, ads: {}}}`)
	nonce := xds.Set(plane.ClusterType, "2", changed)
	xds.Await(s.T, 0, "the subscription to the new service name", wants(plane.EndpointType, "elsewhere"))
	waitFor(s, load, "one", 50)
	xds.Set(plane.EndpointType, "2", endpoints("elsewhere", two.Port))
	xds.Accepted(s.T, nonce, "the changed cluster")
	waitFor(s, load, "two", 50)
	load.StopClean(s.T)
	proxy.Stop()
}

// changedListenerWarms: the old version of a listener serves until the new one has its routes.
func changedListenerWarms(s *site) {
	xds, proxy := s.scripted()
	old := xds.Content(plane.RouteType)
	o := loadOf(s)
	o.Key = version
	load := s.Load(o)
	waitFor(s, load, "1", 20)
	xds.Set(plane.ListenerType, "2", listener("front", s.port, rds("later")))
	xds.Await(s.T, 0, "the subscription to the new routes", wants(plane.RouteType, "later"))
	waitFor(s, load, "1", 50)
	xds.Set(plane.RouteType, "2", append(old, routes("later", "back", "2"))...)
	waitFor(s, load, "2", 50)
	load.StopClean(s.T)
	proxy.Stop()
}

func removals(s *site) {
	one, two := s.Upstream("one", nil), s.Upstream("two", nil)
	xds := plane.NewSnapshots(s.T)
	second := s.Port()
	all := []plane.Resource{
		edsCluster("a"), endpoints("a", one.Port), edsCluster("b"), endpoints("b", two.Port),
		listener("front", s.port, rds("routes")), listener("second", second, rds("routes")),
		routesByPath("routes", "/a", "a", "/b", "b"),
	}
	xds.Set(all...)
	proxy := s.proxy(xds.Port)
	proxy.Ready(15 * time.Second)
	s.body("/a", "one")
	s.body("/b", "two")
	before := proxy.Stat("cluster_manager.active_clusters")

	// A cluster: its routes answer 503, the rest is as before.
	xds.Set(all[0], all[1], all[4], all[5], all[6])
	s.status("/b", 503)
	s.body("/a", "one")
	s.stat(proxy, "cluster_manager.active_clusters", before-1)
	s.stat(proxy, "cluster_manager.cluster_removed", 1)
	// A route.
	xds.Set(all[0], all[1], all[4], all[5], routesByPath("routes", "/b", "a"))
	s.status("/a", 404)
	// A listener: its port is closed, the other one goes on.
	xds.Set(all[0], all[1], all[4], routesByPath("routes", "/a", "a"))
	s.Eventually(10*time.Second, "the removed listener's port is closed", func() error {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", second), time.Second)
		if err == nil {
			c.Close()
			return fmt.Errorf("it still accepts")
		}
		return nil
	})
	s.body("/a", "one")
	// All endpoints: no healthy upstream.
	xds.Set(all[0], plane.Endpoints("{cluster_name: a}"), all[4], routesByPath("routes", "/a", "a"))
	s.status("/a", 503)
	// Everything comes back.
	xds.Set(all...)
	s.body("/a", "one")
	s.body("/b", "two")
	at := *s
	at.port = second
	at.body("/a", "one")
	// And everything goes.
	xds.Set()
	s.stat(proxy, "listener_manager.total_listeners_active", 0)
	proxy.Stop()
}

// initialFetchTimeout: a server that accepts streams and says nothing holds readiness up for the
// configured time and no longer.
func initialFetchTimeout(s *site) {
	xds := plane.NewScript(s.T)
	start := time.Now()
	proxy := s.proxyWith(xds.Port, "", ", initial_fetch_timeout: 1s")
	proxy.Ready(15 * time.Second)
	// Clusters come first, listeners after them: twice the timeout at least, and not the default 15 s.
	took := time.Since(start)
	s.Expect(took >= 2*time.Second, "ready after %v, before both timeouts were over", took)
	s.Expect(proxy.Stat("cluster_manager.cds.init_fetch_timeout") == 1, "cds.init_fetch_timeout is not 1")
	s.Expect(proxy.Stat("listener_manager.lds.init_fetch_timeout") == 1, "lds.init_fetch_timeout is not 1")
	// It still takes what comes late.
	one := s.Upstream("one", nil)
	xds.Set(plane.ClusterType, "1", staticCluster("back", one.Port))
	xds.Set(plane.RouteType, "1", routes("routes", "back", "1"))
	xds.Set(plane.ListenerType, "1", listener("front", s.port, rds("routes")))
	s.body("/", "one")
	proxy.Stop()
}

// routesTimeout: a listener whose routes never come serves 404 after the timeout, and the routes when they come.
func routesTimeout(s *site) {
	one := s.Upstream("one", nil)
	xds := plane.NewScript(s.T)
	xds.Set(plane.ClusterType, "1", staticCluster("back", one.Port))
	xds.Set(plane.ListenerType, "1", listener("front", s.port, rds("routes", ", initial_fetch_timeout: 1s")))
	proxy := s.proxy(xds.Port)
	proxy.Ready(15 * time.Second)
	s.status("/", 404)
	s.Expect(proxy.Stat("http.http.rds.routes.init_fetch_timeout") == 1, "rds.routes.init_fetch_timeout is not 1")
	xds.Set(plane.RouteType, "1", routes("routes", "back", "1"))
	s.body("/", "one")
	proxy.Stop()
}

func nodeOnce(s *site) {
	requests := nodeTraffic(s, ", set_node_on_first_message_only: true")
	seen := map[int64]bool{}
	for i, r := range requests {
		first := !seen[r.Stream]
		seen[r.Stream] = true
		s.Expect((r.Node.GetId() == plane.Node) == first, "request %d on stream %d (first: %v) for %s has node %q", i, r.Stream, first, r.Type, r.Node.GetId())
	}
	s.Expect(len(seen) == 2, "%d streams, want 2", len(seen))
}

func nodeAlways(s *site) {
	for i, r := range nodeTraffic(s, "") {
		s.Expect(r.Node.GetId() == plane.Node, "request %d for %s has no node", i, r.Type)
		s.Expect(r.Node.GetUserAgentName() != "", "request %d has no user_agent_name", i)
	}
}

// nodeTraffic is what a proxy says over two streams.
func nodeTraffic(s *site, ads string) []plane.Request {
	one := s.Upstream("one", nil)
	xds := plane.NewScript(s.T)
	xds.Set(plane.ClusterType, "1", edsCluster("back"))
	xds.Set(plane.EndpointType, "1", endpoints("back", one.Port))
	xds.Set(plane.ListenerType, "1", listener("front", s.port, rds("routes")))
	xds.Set(plane.RouteType, "1", routes("routes", "back", "1"))
	proxy := s.proxyWith(xds.Port, ads, "")
	proxy.Ready(15 * time.Second)
	s.body("/", "one")
	mark := xds.Mark()
	xds.Stop()
	xds.Start()
	for _, typeURL := range []string{plane.ClusterType, plane.EndpointType, plane.ListenerType, plane.RouteType} {
		xds.Await(s.T, mark, "a new request for "+typeURL, func(r plane.Request) bool { return r.Type == typeURL })
	}
	proxy.Stop()
	return xds.Since(0)
}

// unsubscribes: with its cluster gone, the endpoints of it are no longer asked for.
func unsubscribes(s *site) {
	two := s.Upstream("two", nil)
	xds, proxy := s.scripted()
	one := xds.Content(plane.EndpointType)
	xds.Set(plane.EndpointType, "2", append(one, endpoints("spare", two.Port))...)
	nonce := xds.Set(plane.ClusterType, "2", edsCluster("back"), edsCluster("spare"))
	xds.Accepted(s.T, nonce, "a second cluster")
	xds.Await(s.T, 0, "the subscription to its endpoints", wants(plane.EndpointType, "spare"))
	mark := xds.Mark()
	xds.Accepted(s.T, xds.Set(plane.ClusterType, "3", edsCluster("back")), "its removal")
	xds.Await(s.T, mark, "the end of the subscription to its endpoints", func(r plane.Request) bool {
		if r.Type != plane.EndpointType {
			return false
		}
		if s.d == delta {
			return len(r.Unsubscribe) == 1 && r.Unsubscribe[0] == "spare"
		}
		return len(r.Names) == 1 && r.Names[0] == "back"
	})
	s.body("/", "one")
	proxy.Stop()
}

// resourceTTL: a resource with a time to live goes away unless it is renewed in time. Delta renews with
// a heartbeat, which has no content; state of the world sends the listeners again, because an empty
// list of them means that there are none.
func resourceTTL(s *site) {
	xds, proxy := s.scripted()
	brief := *s
	brief.port = s.Port()
	ttl := 2 * time.Second
	send := func() string {
		return xds.PushTTL(plane.ListenerType, "2", ttl, listener("front", s.port, rds("routes")), listener("brief", brief.port, rds("routes")))
	}
	renew := send
	if s.d == delta {
		renew = func() string { return xds.Heartbeat(plane.ListenerType, "2", ttl, "front", "brief") }
	}
	xds.Accepted(s.T, send(), "listeners with a time to live")
	for range 4 {
		time.Sleep(ttl / 2)
		xds.Accepted(s.T, renew(), "a renewal")
	}
	s.stat(proxy, "listener_manager.total_listeners_active", 2)
	brief.body("/", "one")
	s.stat(proxy, "listener_manager.total_listeners_active", 0)
	proxy.Stop()
}

// wants is a request that subscribes to a name.
func wants(typeURL, name string) func(plane.Request) bool {
	return func(r plane.Request) bool {
		if r.Type != typeURL {
			return false
		}
		for _, n := range r.Names {
			if n == name {
				return true
			}
		}
		return false
	}
}
