# noema - `make` builds, `make demo` shows, `make check` tests. See README.md.
ifeq ($(origin CC),default)
CC      := gcc
endif
BUILD   ?= build
OPT     ?= -O2
WARN    := -Wall -Wextra $(WERROR)
PKGS    := jansson libpcre2-8 libutf8proc sqlite3 libxxhash yaml-0.1
CFLAGS  := -std=gnu17 $(OPT) -g $(WARN) -ffp-contract=off -fno-math-errno -fPIC -pthread \
           -MMD -MP -Iinclude -Isrc $(SAN) $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LDLIBS  := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm -pthread
FOLDERS := core tensor file text report model world look learn study cli
LIBSRC  := $(foreach d,$(filter-out cli,$(FOLDERS)),$(wildcard src/$(d)/*.c))
CLISRC  := $(wildcard src/cli/*.c)
UNIT    := $(wildcard tests/unit/*_test.c)
FUZZ    := $(wildcard tests/fuzz/*_fuzz.c)
LIBOBJ  := $(LIBSRC:%.c=$(BUILD)/%.o)
CLIOBJ  := $(CLISRC:%.c=$(BUILD)/%.o)

# Instruction sets are flags of single files; everything else is plain x86-64.
$(BUILD)/src/tensor/kern_portable.o: CFLAGS += -O3
$(BUILD)/src/tensor/kern_avx2.o:   CFLAGS += -O3 -mavx2 -mfma -mf16c
$(BUILD)/src/tensor/kern_avx512.o: CFLAGS += -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
$(BUILD)/src/tensor/kern_avx512bf16.o: CFLAGS += -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq \
                                              -mavx512bf16 -mfma -mf16c

all: $(BUILD)/noema

$(BUILD)/libnoema.a: $(LIBOBJ)
	@rm -f $@ && ar rcs $@ $^
$(BUILD)/noema: $(CLIOBJ) $(BUILD)/libnoema.a
	@echo "  link $@"; $(CC) $(SAN) -o $@ $^ $(LDLIBS)
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  cc $<"; $(CC) $(CFLAGS) -c -o $@ $<

# Each tests/unit/X_test.c is one program (cmocka).
$(BUILD)/tests/unit/%_test: $(BUILD)/tests/unit/%_test.o $(BUILD)/libnoema.a
	@echo "  link $@"; $(CC) $(SAN) -o $@ $^ -lcmocka -llinear $(LDLIBS)
unit: $(UNIT:%.c=$(BUILD)/%)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
.PHONY: all unit
.PRECIOUS: $(BUILD)/%.o

# ---- what a person types ------------------------------------------------------
# The first two install missing Debian packages (after saying which) and then build.
REAL = $(firstword $(MODEL) $(wildcard ../shared/data/models/stories260K/stories260K.f32.gguf))

demo:
	@scripts/need.sh && $(MAKE) --no-print-directory $(BUILD)/noema && \
	 NOEMA=$(BUILD)/noema TRAIN=$(TRAIN) scripts/demo.sh $(REAL)
check:
	@scripts/need.sh && $(MAKE) --no-print-directory WERROR=-Werror $(BUILD)/noema $(BUILD)/bench/probe unit && \
	 BUILD=$(BUILD) scripts/check.sh
check-long: check crash check-faults asan ubsan tsan fuzz study

# Known mistakes, one patch each: the test that must notice it turns red.
check-faults: $(BUILD)/tests/unit/study_test
	@BUILD=$(BUILD) scripts/check_faults.sh
# noema train ended at every call that changes a file; make check takes one of a few.
crash: $(BUILD)/noema
	@CRASH_FULL=1 NOEMA=$(BUILD)/noema bash tests/cli/crash_test.sh
# The miniatures over three seeds: minutes each. Exit 5 is a failed study.
study: $(BUILD)/noema
	@st=0; for s in concept-depth in-context-representations; do \
	 $(BUILD)/noema study $$s -o build-study/$$s || st=$$?; done; exit $$st

# Each sanitizer has its own build folder and runs all unit tests.
asan:
	@$(MAKE) --no-print-directory BUILD=build-asan OPT=-O1 SAN=-fsanitize=address sanitized
ubsan:
	@$(MAKE) --no-print-directory BUILD=build-ubsan OPT=-O1 \
	 SAN="-fsanitize=undefined -fno-sanitize-recover=undefined" sanitized
tsan:
	@$(MAKE) --no-print-directory BUILD=build-tsan OPT=-O1 SAN=-fsanitize=thread sanitized
sanitized: $(BUILD)/noema unit
	@BUILD=$(BUILD) scripts/check.sh unit

# libFuzzer needs clang; FUZZ_SECONDS for each target.
FUZZ_SECONDS ?= 60
fuzz:
	@scripts/fuzz.sh $(FUZZ_SECONDS) $(FUZZ)

BENCHES := $(patsubst %.c,$(BUILD)/%,$(wildcard bench/*.c))
bench: $(BUILD)/noema $(BUILD)/bench/kernels
	@$(BUILD)/bench/kernels && NOEMA=$(BUILD)/noema scripts/bench.sh
# Instructions of five workloads against bench/counts.txt; and that file anew.
# bench-all: the whole table of docs/speed.md beside its peers, and the roofline figure: minutes, on a machine
# that does nothing else. ARGS=--quick for the small part.
counts: $(BUILD)/noema $(BUILD)/bench/probe
	@NOEMA=$(BUILD)/noema BUILD=$(BUILD) CC=$(CC) bash bench/counts.sh
counts-write: $(BUILD)/noema $(BUILD)/bench/probe
	@NOEMA=$(BUILD)/noema BUILD=$(BUILD) CC=$(CC) bash bench/counts.sh --write
bench-all: $(BUILD)/noema $(BENCHES)
	@BUILD=$(BUILD) NOEMA=$(BUILD)/noema bash bench/all.sh $(ARGS)
$(BUILD)/bench/%: $(BUILD)/bench/%.o $(BUILD)/libnoema.a
	@$(CC) $(SAN) -o $@ $^ $(LDLIBS)

worst:
	@scripts/worst.sh
# ---- the library as others use it ---------------------------------------------------
# Only what noema.h declares is to be seen of it: nm_ without a second underscore.
VERSION := $(shell sed -n 's/^\#define NM_VERSION "\(.*\)"/\1/p' include/noema.h)
SOMAJOR := $(firstword $(subst ., ,$(VERSION)))
SONAME  := libnoema.so.$(SOMAJOR)
SHARED  := libnoema.so.$(VERSION)

$(BUILD)/$(SHARED): $(LIBOBJ) src/noema.map
	@echo "  link $@"; $(CC) $(SAN) -shared -Wl,-soname,$(SONAME) -Wl,--version-script=src/noema.map \
	 -Wl,-Bsymbolic-functions -Wl,--no-undefined -o $@ $(LIBOBJ) $(LDLIBS)
$(BUILD)/static/libnoema.a: $(LIBOBJ)
	@mkdir -p $(@D) && rm -f $@ && ld -r -o $(@D)/noema.o $^ && \
	 objcopy -w --keep-global-symbol='nm_[!_]*' $(@D)/noema.o && ar rcs $@ $(@D)/noema.o
lib: $(BUILD)/$(SHARED) $(BUILD)/static/libnoema.a

PREFIX    ?= /usr/local
LIBDIR    ?= $(PREFIX)/lib
AT        := $(DESTDIR)$(PREFIX)
LIBAT     := $(DESTDIR)$(LIBDIR)
BASHCOMP  := $(AT)/share/bash-completion/completions/noema
ZSHCOMP   := $(AT)/share/zsh/site-functions/_noema

install: $(BUILD)/noema lib
	install -D $(BUILD)/noema $(AT)/bin/noema
	install -D -m 644 include/noema.h $(AT)/include/noema.h
	install -D -m 644 $(BUILD)/static/libnoema.a $(LIBAT)/libnoema.a
	install -D -m 644 $(BUILD)/$(SHARED) $(LIBAT)/$(SHARED)
	ln -sf $(SHARED) $(LIBAT)/$(SONAME)
	ln -sf $(SONAME) $(LIBAT)/libnoema.so
	install -d $(LIBAT)/pkgconfig $(AT)/share/man/man1 $(dir $(BASHCOMP)) $(dir $(ZSHCOMP))
	sed 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@VERSION@|$(VERSION)|; s|@PKGS@|$(PKGS)|' \
	 noema.pc.in > $(LIBAT)/pkgconfig/noema.pc
	$(BUILD)/noema --man > $(AT)/share/man/man1/noema.1
	$(BUILD)/noema --completion bash > $(BASHCOMP)
	$(BUILD)/noema --completion zsh > $(ZSHCOMP)
uninstall:
	rm -f $(AT)/bin/noema $(AT)/include/noema.h $(LIBAT)/libnoema.a $(LIBAT)/libnoema.so \
	 $(LIBAT)/$(SONAME) $(LIBAT)/$(SHARED) $(LIBAT)/pkgconfig/noema.pc \
	 $(AT)/share/man/man1/noema.1 $(BASHCOMP) $(ZSHCOMP)
.PHONY: lib uninstall

clean:
	rm -rf build build-study build-asan build-ubsan build-tsan build-fuzz
.PHONY: demo check check-long crash check-faults asan ubsan tsan sanitized fuzz study bench bench-all counts counts-write worst install clean
