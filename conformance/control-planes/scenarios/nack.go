package scenarios

import (
	"encoding/json"
	"fmt"
	"strings"

	"nuncio/conformance/control-planes/kit"
	"nuncio/conformance/control-planes/plane"
)

// nacks: a refused resource is named, its neighbours are applied, and what served goes on serving.
func nacks() []Scenario {
	var out []Scenario
	out = append(out, both("nack/cluster", nackCluster)...)
	out = append(out, both("nack/listener", nackListener)...)
	out = append(out, both("nack/route", nackRoute)...)
	out = append(out, both("nack/endpoints", nackEndpoints)...)
	return out
}

// unknown is a typed_config no proxy has an implementation for.
const unknown = `{"@type": type.googleapis.com/google.protobuf.Struct, value: {made: up}}`

// scripted is a proxy that serves "one" from back by a scripted control plane, all at version 1.
func (s *site) scripted() (*plane.Script, *kit.Proxy) {
	one := s.Upstream("one", nil)
	xds := plane.NewScript(s.T)
	xds.Set(plane.ClusterType, "1", edsCluster("back"))
	xds.Set(plane.EndpointType, "1", endpoints("back", one.Port))
	xds.Set(plane.ListenerType, "1", listener("front", s.port, rds("routes")))
	xds.Set(plane.RouteType, "1", routes("routes", "back", "1"))
	proxy := s.proxy(xds.Port)
	proxy.Ready(15e9)
	s.body("/", "one")
	return xds, proxy
}

// refused checks what every NACK has: the bad resource by its name, and the version still in force.
func (s *site) refused(xds *plane.Script, nonce, bad, version string) {
	r := xds.Refused(s.T, nonce, "the bad "+bad)
	s.Expect(strings.Contains(r.Error, bad), "error_detail does not name %s: %s", bad, r.Error)
	if s.d == sotw {
		s.Expect(r.Version == version, "the NACK carries version %q, want %q", r.Version, version)
	}
}

func nackCluster(s *site) {
	two := s.Upstream("two", nil)
	xds, proxy := s.scripted()
	load := s.Load(loadOf(s))
	bad := func(name string) plane.Resource {
		return staticCluster(name, two.Port, "transport_socket: {name: made-up, typed_config: "+unknown+"}")
	}
	nonce := xds.Set(plane.ClusterType, "2",
		edsCluster("back"), bad("bad-one"), staticCluster("good", two.Port), bad("bad-two"))
	s.refused(xds, nonce, "bad-one", "1")
	s.refused(xds, nonce, "bad-two", "1")
	// The good neighbour is there and usable, although its response was refused.
	nonce = xds.Set(plane.RouteType, "2", routesByPath("routes", "/two", "good", "/bad", "bad-one", "/", "back"))
	xds.Accepted(s.T, nonce, "routes")
	s.body("/two", "two")
	s.status("/bad", 503)
	s.body("/", "one")
	s.Expect(proxy.Stat("cluster_manager.cds.update_rejected") >= 1, "cds.update_rejected is not counted")
	// A bad new version of a cluster leaves the old one in force.
	s.refused(xds, xds.Set(plane.ClusterType, "3", bad("back"), staticCluster("good", two.Port)), "back", "1")
	s.body("/", "one")
	nonce = xds.Set(plane.ClusterType, "4", edsCluster("back"), staticCluster("good", two.Port))
	xds.Accepted(s.T, nonce, "the repaired clusters")
	s.body("/", "one")
	load.StopClean(s.T)
	proxy.Stop()
}

func nackListener(s *site) {
	xds, proxy := s.scripted()
	load := s.Load(loadOf(s))
	other := s.Port()
	bad := func(name string, port int) plane.Resource {
		return plane.Listener(fmt.Sprintf(`
name: %s
address: {socket_address: {address: 127.0.0.1, port_value: %d}}
filter_chains: [{filters: [{name: made-up, typed_config: %s}]}]`, name, port, unknown))
	}
	good := listener("good", other, rds("routes"))
	nonce := xds.Set(plane.ListenerType, "2", bad("front", s.port), bad("never", s.Port()), good)
	s.refused(xds, nonce, "front", "1")
	s.refused(xds, nonce, "never", "1")
	at := *s
	at.port = other
	at.body("/", "one")
	s.body("/", "one")

	// The one that serves and the one that never did both show what is wrong with their latest version.
	for name, active := range map[string]bool{"front": true, "never": false} {
		l := dumpedListener(s, proxy, name)
		s.Expect(l.ErrorState != nil && l.ErrorState.Details != "", "/config_dump has no error_state for %s", name)
		s.Expect((l.ActiveState != nil) == active, "active_state of %s: %v", name, l.ActiveState != nil)
	}
	s.Expect(dumpedListener(s, proxy, "good").ErrorState == nil, "good has an error_state")
	s.Expect(proxy.Stat("listener_manager.lds.update_rejected") >= 1, "lds.update_rejected is not counted")

	nonce = xds.Set(plane.ListenerType, "3", listener("front", s.port, rds("routes")), good)
	xds.Accepted(s.T, nonce, "the repaired listeners")
	s.Expect(dumpedListener(s, proxy, "front").ErrorState == nil, "the repaired listener still has an error_state")
	s.body("/", "one")
	load.StopClean(s.T)
	proxy.Stop()
}

func nackRoute(s *site) {
	xds, proxy := s.scripted()
	load := s.Load(loadOf(s))
	bad := plane.Route(`
name: routes
virtual_hosts:
- name: all
  domains: ["*"]
  routes: [{match: {safe_regex: {regex: "(unclosed"}}, route: {cluster: back}}]`)
	r := xds.Refused(s.T, xds.Set(plane.RouteType, "2", bad), "a route with a broken regular expression")
	s.Expect(s.d == delta || r.Version == "1", "the NACK carries version %q, want 1", r.Version)
	a, err := s.ask("/")
	s.OK(err, "ask")
	s.Expect(a.header.Get("x-version") == "1", "x-version %q", a.header.Get("x-version"))
	xds.Accepted(s.T, xds.Set(plane.RouteType, "3", routes("routes", "back", "3")), "the repaired routes")
	s.Eventually(10e9, "the repaired routes serve", func() error {
		if a, err := s.ask("/"); err != nil || a.header.Get("x-version") != "3" {
			return fmt.Errorf("x-version %q, %v", a.header.Get("x-version"), err)
		}
		return nil
	})
	load.StopClean(s.T)
	proxy.Stop()
}

func nackEndpoints(s *site) {
	two := s.Upstream("two", nil)
	xds, proxy := s.scripted()
	load := s.Load(loadOf(s))
	bad := plane.Endpoints(`
cluster_name: back
endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: not-an-address, port_value: 1}}}}]}]`)
	r := xds.Refused(s.T, xds.Set(plane.EndpointType, "2", bad), "a host name as an EDS address")
	s.Expect(s.d == delta || r.Version == "1", "the NACK carries version %q, want 1", r.Version)
	s.body("/", "one")
	xds.Accepted(s.T, xds.Set(plane.EndpointType, "3", endpoints("back", two.Port)), "the repaired endpoints")
	s.body("/", "two")
	load.StopClean(s.T)
	proxy.Stop()
}

// listenerDump is one dynamic listener of /config_dump.
type listenerDump struct {
	Name        string `json:"name"`
	ActiveState *struct {
		VersionInfo string `json:"version_info"`
	} `json:"active_state"`
	ErrorState *struct {
		Details string `json:"details"`
	} `json:"error_state"`
}

func dumpedListener(s *site, proxy *kit.Proxy, name string) listenerDump {
	_, body, err := proxy.Get("/config_dump?resource=dynamic_listeners")
	s.OK(err, "/config_dump")
	var dump struct {
		Configs []listenerDump `json:"configs"`
	}
	s.OK(json.Unmarshal([]byte(body), &dump), "/config_dump")
	for _, l := range dump.Configs {
		if l.Name == name {
			return l
		}
	}
	s.Fatalf("/config_dump has no dynamic listener %s", name)
	return listenerDump{}
}
