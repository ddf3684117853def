# ps: remote packet capture. `make help` lists the targets.
#
# Each folder's Makefile is a list (srcs, libs, ...); all rules are here.

MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

VERSION := 0.1.0
O       ?= build
V       ?= 0
prefix  ?= /usr/local
DESTDIR ?=
bindir  := $(DESTDIR)$(prefix)/bin
mandir  := $(DESTDIR)$(prefix)/share/man
docdir  := $(DESTDIR)$(prefix)/share/doc/ps

# For another machine: its tools by CROSS_COMPILE, its libraries and headers in SYSROOT
# (contrib/sysroot makes one) unless the tools find them by themselves.
CROSS_COMPILE ?=
SYSROOT    ?=
CC         := $(CROSS_COMPILE)gcc $(if $(SYSROOT),--sysroot=$(SYSROOT))
AR         := $(CROSS_COMPILE)ar
STRIP      := $(CROSS_COMPILE)strip
MULTIARCH  := $(shell $(CC) -print-multiarch 2>/dev/null)
ifeq ($(SYSROOT),)
PKG_CONFIG ?= $(CROSS_COMPILE)pkg-config
else
PKG_CONFIG ?= PKG_CONFIG_SYSROOT_DIR=$(SYSROOT) PKG_CONFIG_LIBDIR=$(SYSROOT)/usr/lib/$(MULTIARCH)/pkgconfig pkg-config
endif
CLANG      ?= clang
BPFTOOL    ?= $(firstword $(wildcard /usr/sbin/bpftool) bpftool)

ifeq ($(V),0)
Q := @
say = @printf '  %-7s %s\n' '$(1)' '$(patsubst $(O)/%,%,$(2))'
endif

# What the machine has.
has = $(shell $(PKG_CONFIG) --exists $(1) 2>/dev/null && echo y)
# ISA-L's code for arm64 reads past the end of its input, and may inflate to wrong bytes
# (its issue 316); ours finds the former.
HAVE_ISAL ?= $(if $(filter x86,$(ARCH)),$(call has,libisal))
# AF_XDP sockets, for taps.
HAVE_XDP ?= $(call has,libxdp)
# A filter of system calls around the running agent.
HAVE_SECCOMP ?= $(call has,libseccomp)

ARCH := $(patsubst aarch64,arm64,$(patsubst x86_64,x86,$(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))))

CFLAGS  ?= -O2 -g
WARN    := -Wall -Wextra -Werror -Wformat=2 -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	   -Wpointer-arith -Wvla -Wundef -Wold-style-definition -Wwrite-strings -Wcast-qual
DEFS    := -D_GNU_SOURCE -DPS_VERSION='"$(VERSION)"' $(foreach h,ISAL XDP SECCOMP,$(if $(HAVE_$(h)),-DHAVE_$(h)))
HARDEN  := -fstack-protector-strong -fPIE
LDHARDEN := -pie -Wl,-z,relro,-z,now
ifdef SAN
# TSan does not follow fences; the one there is orders us against the kernel.
HARDEN  += -fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer $(if $(findstring thread,$(SAN)),-Wno-tsan)
LDHARDEN += -fsanitize=$(SAN)
else
DEFS    += $(if $(findstring -O0,$(CFLAGS)),,-D_FORTIFY_SOURCE=2)
endif

folders := common bpf agent collector
# Read a folder's list: NAME-srcs, NAME-libs, NAME-skels.
define folder
srcs :=
libs :=
skels :=
include $(1)/Makefile
$(1)-srcs := $$(addprefix $(1)/,$$(srcs))
$(1)-objs := $$(patsubst %.c,$(O)/%.o,$$($(1)-srcs))
$(1)-libs := $$(libs)
$(1)-skels := $$(patsubst %,$(O)/$(1)/%.skel.h,$$(skels))
endef
$(foreach f,$(folders),$(eval $(call folder,$(f))))

# Who may include whom.
inc-common    := -iquote common
inc-agent     := -iquote agent -iquote common -iquote bpf -iquote $(O)/bpf
inc-collector := -iquote collector -iquote common

libs-common := $(common-libs)
# STATIC=1: every library whose archive is there but for GnuTLS, which has none of its
# own dependencies as archives; libbpf brings libelf and zlib.
pc = $(shell $(PKG_CONFIG) --libs $(1) 2>/dev/null)
ifdef STATIC
archives := $(foreach l,bpf elf mnl yaml z isal,$(if $(wildcard $(shell $(CC) -print-file-name=lib$(l).a)),-l$(l)))
link = -Wl,-Bstatic $(filter $(archives),$(1)) $(if $(filter -lbpf,$(1)),-lelf -lz) -Wl,-Bdynamic $(filter-out $(archives),$(1))
else
link = $(1)
endif
ldlibs-common    = $(call pc,$(common-libs))
ldlibs-agent     = $(call link,$(call pc,$(agent-libs) $(common-libs))) -lpthread
ldlibs-collector = $(call link,$(call pc,$(collector-libs) $(common-libs))) -lpthread

programs := $(O)/ps-agent $(O)/ps-collector

.PHONY: all
all: $(programs)

$(O)/ps-agent: $(agent-objs) $(O)/libcommon.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDHARDEN) $(LDFLAGS) -o $@ $^ $(ldlibs-agent)
	$(if $(RELEASE),$(Q)$(STRIP) $@)
$(O)/ps-collector: $(collector-objs) $(O)/libcommon.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDHARDEN) $(LDFLAGS) -o $@ $^ $(ldlibs-collector)
	$(if $(RELEASE),$(Q)$(STRIP) $@)

# The daemons' code but for main(): for tests.
$(O)/libcommon.a: $(common-objs) common/Makefile
$(O)/libagent.a: $(filter-out %/main.o,$(agent-objs)) agent/Makefile
$(O)/libcollector.a: $(filter-out %/main.o,$(collector-objs)) collector/Makefile
$(O)/lib%.a:
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

define compile
$(O)/$(1)/%.o: $(1)/%.c $(O)/flags
	$$(call say,CC,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(CC) -std=gnu17 $$(CFLAGS) $$(WARN) $$(HARDEN) $$(DEFS) $$(inc-$(1)) -MMD -MP -c -o $$@ $$<
endef
$(foreach f,common agent collector,$(eval $(call compile,$(f))))

# BPF: object, then skeleton.
BPFFLAGS := -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -D__TARGET_ARCH_$(ARCH) \
	    -Ivmlinux -Ibpf $(if $(MULTIARCH),-idirafter $(SYSROOT)/usr/include/$(MULTIARCH))
$(O)/bpf/%.bpf.o: bpf/%.bpf.c $(O)/flags
	$(call say,BPF,$@)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPFFLAGS) -MMD -MP -c -o $@ $<
$(O)/bpf/%.skel.h: $(O)/bpf/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name $(*F) >$@
.PRECIOUS: $(O)/bpf/%.bpf.o
$(agent-objs): | $(bpf-skels)

# Objects depend on the flags they were made with.
flags-now := $(CC) $(CFLAGS) $(WARN) $(HARDEN) $(DEFS) $(BPFFLAGS) $(LDHARDEN) $(LDFLAGS) $(STATIC) $(RELEASE)
.PHONY: FORCE
$(O)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(flags-now))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(flags-now))' >$@

-include $(patsubst %.o,%.d,$(common-objs) $(agent-objs) $(collector-objs))
-include $(wildcard $(O)/bpf/*.d)

include selftests/Makefile

.PHONY: deps
deps:
	$(Q)contrib/deps.sh build test

.PHONY: demo
demo:
	$(Q)contrib/deps.sh build test
	$(Q)$(MAKE) all
	$(Q)PS_BUILD=$(O) contrib/demo.sh

man-pages := $(wildcard contrib/man/*.[578])
.PHONY: install
install: all
	install -d $(bindir) $(docdir)/examples $(sort $(foreach m,$(man-pages),$(mandir)/man$(subst .,,$(suffix $(m)))))
	install -m 755 $(programs) $(bindir)
	install -m 644 README.md LICENSE $(docdir)
	install -m 644 contrib/config/*.yaml $(docdir)/examples
	for m in $(man-pages); do install -m 644 $$m $(mandir)/man$${m##*.}; done

.PHONY: clean
clean:
	$(Q)rm -rf $(O)

.PHONY: help
help:
	@echo 'Targets:'
	@echo '  all       build ps-agent and ps-collector (default)'
	@echo '  deps      install the packages that are missing (root; does nothing when none is)'
	@echo '  demo      build, then send packets through agent and collector before your eyes (root)'
	@echo '  check     tests that need no rights'
	@echo '  test      all tests, in network namespaces of their own (root)'
	@echo '  selftest  what depends on the kernel under others, in virtual machines (KERNELS="6.1 6.12")'
	@echo '  cross     build for arm64, run the tests that need no rights in emulation'
	@echo '  bench     figures, beside tcpdump and dumpcap (root)'
	@echo '  memcheck  the main path with both daemons under valgrind (root)'
	@echo '  fuzz      every fuzzer for FUZZ_SECONDS (60)'
	@echo '  fuzz-coverage  how much of the decoders the corpora reach'
	@echo '  chaos     three agents under load while everything between breaks (PS_CHAOS="--events N --seed N")'
	@echo '  lint      style and static checks'
	@echo '  install   to DESTDIR, prefix'
	@echo '  clean     remove the build folder'
	@echo 'Variables: O=DIR (build)  V=1 show commands  SAN=address,undefined  RELEASE=1 stripped'
	@echo '  STATIC=1 as static as the packages allow  CROSS_COMPILE=aarch64-linux-gnu- SYSROOT=DIR'
