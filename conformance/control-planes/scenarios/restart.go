package scenarios

import (
	"fmt"
	"time"

	"nuncio/conformance/control-planes/plane"
)

// restarts: a control plane that dies changes nothing for traffic, and when it is back the proxy
// finds it within its back-off (30 s at most, far less after a short outage).
func restarts() []Scenario {
	var out []Scenario
	out = append(out, both("faults/control-plane-killed-under-load", killedUnderLoad)...)
	out = append(out, both("faults/flapping-control-plane", flapping)...)
	out = append(out, both("faults/control-plane-late", lateControlPlane)...)
	out = append(out, Scenario{"faults/reconnect-sends-versions/delta", with(delta, reconnectSendsVersions)})
	out = append(out, Scenario{"faults/reconnect-sends-version/sotw", with(sotw, reconnectSendsVersion)})
	return out
}

func killedUnderLoad(s *site) {
	one, two := s.Upstream("one", nil), s.Upstream("two", nil)
	xds := plane.NewSnapshots(s.T)
	config := func(version string, port int) []plane.Resource {
		return []plane.Resource{
			edsCluster("back"), endpoints("back", port),
			listener("front", s.port, rds("routes")), routes("routes", "back", version),
		}
	}
	xds.Set(config("1", one.Port)...)
	proxy := s.proxy(xds.Port)
	proxy.Ready(15 * time.Second)
	s.body("/", "one")

	load := s.Load(loadOf(s))
	waitFor(s, load, "one", 50)
	xds.Stop()
	time.Sleep(s.LoadTime(2 * time.Second))
	s.Expect(load.Seen("one") > 100, "the load stood still while the control plane was away")
	xds.Set(config("2", two.Port)...)
	xds.Start()
	s.Eventually(35*time.Second, "the new configuration serves", func() error {
		if a, err := s.ask("/"); err != nil || a.body != "two" || a.header.Get("x-version") != "2" {
			return fmt.Errorf("still %q, %v", a.body, err)
		}
		return nil
	})
	waitFor(s, load, "two", 50)
	load.StopClean(s.T)
	proxy.Stop()
}

// flapping: five quick restarts, and configuration still arrives.
func flapping(s *site) {
	one := s.Upstream("one", nil)
	xds := plane.NewSnapshots(s.T)
	xds.Set(staticCluster("back", one.Port), listener("front", s.port, rds("routes")), routes("routes", "back", "0"))
	proxy := s.proxy(xds.Port)
	proxy.Ready(15 * time.Second)
	load := s.Load(loadOf(s))
	for i := range 5 {
		mark := xds.Mark()
		xds.Stop()
		xds.Start()
		xds.Await(s.T, mark, "the proxy is back", func(plane.Request) bool { return true })
		s.Expect(load.Total() > 0 || i == 0, "no load")
	}
	xds.Set(staticCluster("back", one.Port), listener("front", s.port, rds("routes")), routes("routes", "back", "last"))
	s.Eventually(35*time.Second, "the last version", func() error {
		if a, err := s.ask("/"); err != nil || a.header.Get("x-version") != "last" {
			return fmt.Errorf("version %q, %v", a.header.Get("x-version"), err)
		}
		return nil
	})
	load.StopClean(s.T)
	proxy.Stop()
}

// lateControlPlane: the proxy is up before its control plane and becomes ready once that is there.
func lateControlPlane(s *site) {
	one := s.Upstream("one", nil)
	xds := plane.NewSnapshots(s.T)
	xds.Stop()
	xds.Set(staticCluster("back", one.Port), listener("front", s.port, rds("routes")), routes("routes", "back", "1"))
	proxy := s.proxy(xds.Port)
	s.Eventually(10*time.Second, "the admin endpoint is there", func() error { _, _, err := proxy.Get("/ready"); return err })
	s.still(500*time.Millisecond, "not ready without a configuration", func() error {
		if code, body, err := proxy.Get("/ready"); err != nil || code != 503 {
			return fmt.Errorf("/ready is %d %q, %v", code, body, err)
		}
		return nil
	})
	xds.Start()
	proxy.Ready(14 * time.Second) // within initial_fetch_timeout, so by what it was told
	s.body("/", "one")
	proxy.Stop()
}

// reconnectSendsVersions: on a new stream the first request of each type says what the proxy has.
func reconnectSendsVersions(s *site) {
	one := s.Upstream("one", nil)
	xds := plane.NewSnapshots(s.T)
	xds.Set(edsCluster("back"), endpoints("back", one.Port), staticCluster("other", one.Port),
		listener("front", s.port, rds("routes")), routes("routes", "back", "1"))
	proxy := s.proxy(xds.Port)
	proxy.Ready(15 * time.Second)
	s.body("/", "one")
	mark := xds.Mark()
	xds.Stop()
	xds.Start()
	want := map[string][]string{
		plane.ClusterType: {"back", "other"}, plane.EndpointType: {"back"},
		plane.ListenerType: {"front"}, plane.RouteType: {"routes"},
	}
	for typeURL, names := range want {
		r := xds.Await(s.T, mark, "a new request for "+typeURL, func(r plane.Request) bool { return r.Type == typeURL })
		s.Expect(r.Nonce == "", "the first request of a stream carries nonce %q", r.Nonce)
		s.Expect(r.Node.GetId() == plane.Node || typeURL != firstType(xds.Since(mark)), "the first request has no node")
		s.Expect(len(r.Initial) == len(names), "%s: initial_resource_versions %v, want %v", typeURL, r.Initial, names)
		for _, name := range names {
			s.Expect(r.Initial[name] != "", "%s: no initial version of %s: %v", typeURL, name, r.Initial)
		}
		if typeURL == plane.EndpointType || typeURL == plane.RouteType {
			s.Expect(len(r.Names) == 1 && r.Names[0] == names[0], "%s: subscribes to %v", typeURL, r.Names)
		}
	}
	proxy.Stop()
}

// reconnectSendsVersion: state of the world sends the version it has, and no nonce.
func reconnectSendsVersion(s *site) {
	one := s.Upstream("one", nil)
	xds := plane.NewScript(s.T)
	xds.Set(plane.ClusterType, "c7", edsCluster("back"))
	xds.Set(plane.EndpointType, "e7", endpoints("back", one.Port))
	xds.Set(plane.ListenerType, "l7", listener("front", s.port, rds("routes")))
	xds.Set(plane.RouteType, "r7", routes("routes", "back", "1"))
	proxy := s.proxy(xds.Port)
	proxy.Ready(15 * time.Second)
	s.body("/", "one")
	mark := xds.Mark()
	xds.Stop()
	xds.Start()
	for typeURL, version := range map[string]string{
		plane.ClusterType: "c7", plane.EndpointType: "e7", plane.ListenerType: "l7", plane.RouteType: "r7",
	} {
		r := xds.Await(s.T, mark, "a new request for "+typeURL, func(r plane.Request) bool { return r.Type == typeURL })
		s.Expect(r.Nonce == "", "the first request of a stream carries nonce %q", r.Nonce)
		s.Expect(r.Version == version, "%s: version %q, want %q", typeURL, r.Version, version)
	}
	proxy.Stop()
}

func firstType(requests []plane.Request) string {
	if len(requests) == 0 {
		return ""
	}
	return requests[0].Type
}
